"""A sequence classifier of the store scores rows for the curation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import clock
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hone_api.blocks.rewards import Reward as RewardSpec
from hone_api.plan import MaterializePlan, ModelInput
from hone_trainer.datasets import materialize
from hone_trainer.datasets.curation.classifier import Classifier
from hone_trainer.errors import ConfigError, SourceError
from hone_trainer.rewards.base import Context
from hone_trainer.rewards.model import RewardModelScorer
from hone_trainer.sandbox.workers import SandboxWorkers

pytestmark = pytest.mark.trainer
ROWS = [{"prompt": f"Where is the river of place {i}?", "completion": "Here. " * (i % 7 + 1)} for i in range(24)]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Callable[..., Path]:
    """A random classifier with these labels on the tiny model's body; one label: a reward model."""

    def make(*labels: str) -> Path:
        folder = tmp_path_factory.mktemp("classifier")
        torch.manual_seed(3)
        names = dict(enumerate(labels))
        model = AutoModelForSequenceClassification.from_pretrained(
            tiny_model, num_labels=len(labels), id2label=names, label2id={name: i for i, name in names.items()}
        )
        torch.nn.init.normal_(model.score.weight, std=0.1)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
        return folder

    return make


def expected(folder: Path, row: dict[str, str]) -> torch.Tensor:
    """Logits of one row by itself, as its conversation in the model's template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    text = text[: text.rindex("<|im_end|>") + len("<|im_end|>")]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0]
    return logits


def test_a_score_is_the_probability_of_a_label_in_a_batch_as_alone(make: Any, tmp_path: Path) -> None:
    folder = make("poor", "fair", "good")
    scores = {
        label: Classifier(ModelInput(path=str(folder)), label, tmp_path / str(label)).scores(ROWS)
        for label in (None, "good", "poor")
    }
    assert scores[None] == scores["good"]
    for index in (0, 5, 23):
        chances = expected(folder, ROWS[index]).softmax(dim=0)
        assert scores["good"][index] == pytest.approx(float(chances[2]), abs=1e-5)
        assert scores["poor"][index] == pytest.approx(float(chances[0]), abs=1e-5)


def test_a_reward_models_score_is_the_sigmoid_of_its_reward(make: Any, tmp_path: Path) -> None:
    folder = make("reward")
    scores = Classifier(ModelInput(path=str(folder)), None, tmp_path).scores(ROWS[:4])
    assert scores[3] == pytest.approx(float(expected(folder, ROWS[3]).sigmoid()), abs=1e-5)


def test_rows_out_of_bounds_are_removed_with_their_score(make: Any, tmp_path: Path) -> None:
    folder = make("poor", "good")
    scores = Classifier(ModelInput(path=str(folder)), None, tmp_path / "room").scores(ROWS)
    assert max(scores) - min(scores) > 0.001
    bound = round(100 * sorted(scores)[12], 3)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    plan = {
        "name": "rows",
        "store": str(tmp_path / "store"),
        "source": {"uri": "pvc://claim/rows.jsonl"},
        "sourcePath": str(tmp_path / "rows.jsonl"),
        "curation": {"scores": [{"scorer": "Classifier", "modelVersion": "judge-v1", "minimum": f"{bound}%"}]},
        "classifiers": {"judge-v1": {"path": str(folder)}},
    }
    result = materialize.run(MaterializePlan.model_validate(plan))
    low = [number for number, score in enumerate(scores, 1) if round(100 * score, 6) < bound]
    assert result.curation[0].step == "Classifier"
    assert result.curation[0].removed == len(low)
    assert result.curation[0].rows == low[:10]
    assert f"minimum is {bound}%" in str(result.curation[0].example)


def test_what_is_not_a_classifier_or_does_not_have_the_label_is_refused(
    make: Any, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="LlamaForCausalLM, which classifies no sequences"):
        Classifier(ModelInput(path=str(tiny_model)), None, tmp_path)
    with pytest.raises(ConfigError, match="labels are good, poor, not best"):
        Classifier(ModelInput(path=str(make("poor", "good"))), "best", tmp_path)


@pytest.mark.attack("model configs")
@pytest.mark.parametrize("kind", ["classifier", "reward"])
def test_a_scoring_model_that_names_a_kernel_is_refused_before_it_is_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "attn_implementation": "owner/kernel"}')
    spec = RewardSpec.model_validate({"type": "RewardModel", "rewardModel": {"modelVersion": "taste-v1"}})
    with SandboxWorkers(1) as workers:
        load: Callable[[], object] = {
            "reward": lambda: RewardModelScorer(Context(spec, workers, tmp_path)),
            "classifier": lambda: Classifier(ModelInput(path=str(tmp_path)), None, tmp_path),
        }[kind]
        with pytest.raises(SourceError, match="has attn_implementation") as raised:
            load()
    assert raised.value.code == "UnsafeModel"


def test_a_row_has_the_same_score_on_every_day(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chat template that prints the date."""
    folder = make("poor", "good")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = clock.LLAMA_3
    tokenizer.save_pretrained(folder)
    scorer = Classifier(ModelInput(path=str(folder)), None, tmp_path)
    clock.stands_at(monkeypatch, "2026-11-27")
    scores = scorer.scores(ROWS)
    clock.stands_at(monkeypatch, "2031-02-03")
    assert scorer.scores(ROWS) == scores
