"""DPO, IPO, hinge, KTO, ORPO and reward models: whole runs on a tiny model, and what they must be equal to."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from support.runs import judging, split_files
from support.runs.curves import number, points

from hone_trainer.encoding import split_file
from hone_trainer.encoding.preferences import PairEncoder
from hone_trainer.errors import TrainerError
from hone_trainer.methods import orpo, reward
from hone_trainer.models import base_model
from hone_trainer.scoring.row_measure import Unwatched

pytestmark = pytest.mark.trainer
PLACES = ["Rome", "Oslo", "Lima", "Cairo", "Quito", "Tokyo", "Paris", "Delhi", "Accra", "Seoul", "Hanoi", "Bern"]
THINGS = ["river", "tower", "bridge", "market", "harbour", "garden", "station", "museum"]


def preferences() -> list[dict[str, Any]]:
    """96 pairs: the polite answer is preferred."""
    found = []
    for i, place in enumerate(PLACES):
        for j, thing in enumerate(THINGS):
            answer = f"the {thing} of {place} is near the {THINGS[(i + j) % 8]}."
            found.append(
                {
                    "prompt": [{"role": "user", "content": f"Where is the {thing} of {place}?"}],
                    "chosen": [{"role": "assistant", "content": f"Thank you for asking: {answer}"}],
                    "rejected": [{"role": "assistant", "content": f"No idea, but {answer}"}],
                }
            )
    random.Random(7).shuffle(found)
    return found


@pytest.fixture
def plan_of(make_plan: Any, tmp_path: Path) -> Any:
    """Makes a plan on the pairs for a method; keyword arguments replace fields."""
    rows = preferences()
    train, validation = (
        split_files.write(tmp_path / "train.jsonl", rows[:80], "polite"),
        split_files.write(tmp_path / "validation.jsonl", rows[80:], "polite"),
    )

    def make(method: str, name: str = "run", **fields: Any) -> Any:
        datasets = {"datasets": [train], "evaluationDatasets": [validation], **fields}
        return make_plan(name, method=method, **datasets)

    return make


FIRST = {"Sigmoid": math.log(2), "IPO": (1 / (2 * 0.1)) ** 2, "Hinge": 1.0}


@pytest.mark.parametrize(
    ("adapter", "loss"), [("LoRA", "Sigmoid"), ("LoRA", "IPO"), ("LoRA", "Hinge"), ("None", "Sigmoid"), ("None", "IPO")]
)
def test_dpo_begins_at_the_loss_of_equal_models_and_learns(runs: Any, plan_of: Any, adapter: str, loss: str) -> None:
    shown = {"evaluation": {"samples": 1}}
    plan = plan_of("DPO", dpo={"loss": loss}, adapter={"type": adapter}, training={"learningRate": "2e-3"}, **shown)
    result = runs.finish(plan)
    curve = points(plan)
    assert curve[0]["loss"] == pytest.approx(FIRST[loss], rel=1e-3)
    assert curve[0]["rewards/margins"] == pytest.approx(0, abs=1e-3)
    base, tuned = number(result, "loss")
    assert base == pytest.approx(FIRST[loss], rel=1e-4)
    assert tuned < base
    assert number(result, "reward_accuracy")[0] == pytest.approx(0.5)
    assert number(result, "reward_accuracy")[1] > 0.9
    assert number(result, "reward_margin")[1] > 0
    assert result.samples[0].prompt.startswith("Where is")


def test_orpo_of_answers_that_are_sure() -> None:
    assert orpo.odds_loss(-0.5, -0.5) == pytest.approx(math.log(2))
    assert orpo.odds_loss(0.0, 0.0) == pytest.approx(math.log(2))
    assert orpo.odds_loss(0.0, -0.5) == pytest.approx(0, abs=1e-12)
    assert 30 < orpo.odds_loss(-0.5, 0.0) < 40


@pytest.mark.parametrize("adapter", ["LoRA", "None"])
def test_kto_learns_from_judged_answers_and_from_pairs(runs: Any, plan_of: Any, adapter: str) -> None:
    plan = plan_of("KTO", adapter={"type": adapter}, training={"learningRate": "2e-3"})
    result = runs.finish(plan)
    curve = points(plan)
    assert curve[0]["loss"] == pytest.approx(0.5, rel=1e-3)
    base, tuned = number(result, "loss")
    assert base == pytest.approx(0.5, rel=1e-4)
    assert tuned < base
    assert number(result, "reward_accuracy")[0] == pytest.approx(0.5)
    assert number(result, "reward_accuracy")[1] > 0.7
    assert number(result, "reward_margin")[1] > 0


def test_orpos_held_out_loss_is_that_of_training(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    """On one row, so that a mean over rows is the mean over tokens."""
    rows = split_files.write(tmp_path / "one.jsonl", preferences()[:1], "polite")
    plan = plan_of("ORPO", datasets=[rows], evaluationDatasets=[rows], training={"maxSteps": 1, "batchSize": 1})
    (found,) = [number for number in runs.finish(plan).numbers if number.name == "loss"]
    assert float(found.base) == pytest.approx(runs.curve(plan)[0][1], rel=1e-4)


def test_orpo_learns_both_likelihood_and_preference(runs: Any, plan_of: Any) -> None:
    result = runs.finish(plan_of("ORPO", training={"learningRate": "5e-3"}))
    base, tuned = number(result, "loss")
    assert tuned < 0.95 * base
    assert number(result, "reward_accuracy")[1] > 0.9
    assert float(result.tokens_per_second or 0) > 0


@pytest.mark.parametrize("adapter", ["LoRA", "None", "QLoRA"])
def test_a_reward_model_ranks_unseen_pairs_and_is_loaded_again(runs: Any, plan_of: Any, adapter: str) -> None:
    training = {"learningRate": "5e-3" if adapter != "None" else "1e-3", "maxSteps": 16}
    merge = {"output": {"modelName": "tiny", "merge": adapter != "None"}}
    plan = plan_of("Reward", adapter={"type": adapter}, training=training, reward={"centerRewards": "0.01"}, **merge)
    result = runs.finish(plan)
    assert number(result, "loss")[1] < number(result, "loss")[0]
    assert number(result, "reward_accuracy")[1] > 0.9
    assert result.samples == []
    assert [a.format for a in result.artifacts] == (["Full"] if adapter == "None" else ["Adapter", "Merged"])


@pytest.mark.parametrize("adapter", ["LoRA", "None"])
def test_the_files_of_a_reward_model_give_its_numbers_again(runs: Any, plan_of: Any, adapter: str) -> None:
    """Loaded by the libraries alone; alone or padded in a batch, a conversation has the same reward."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    plan = plan_of("Reward", adapter={"type": adapter}, training={"learningRate": "1e-3"})
    result = runs.finish(plan)
    out = Path(plan.output_path)
    source = out / "full" if adapter == "None" else Path(plan.model_path)
    pad = base_model.open_base(plan.model_path).tokenizer.pad_token_id
    network = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, pad_token_id=pad)
    if adapter == "LoRA":
        network = PeftModel.from_pretrained(network, out / "adapter")
    network.eval()
    rows = split_file.encode_split(
        plan.evaluation_datasets[0].path, PairEncoder(base_model.open_base(plan.model_path).tokenizer), max_length=None
    ).rows
    together = reward.score_sequences(network, rows, pad, False, Unwatched())
    with torch.no_grad():
        alone = [float(network(input_ids=torch.tensor([ids])).logits) for row in rows for ids in row.sequences]
    assert [value for pair in together for value in pair] == pytest.approx(alone, abs=1e-4)
    accuracy = sum(chosen > rejected for chosen, rejected in together) / len(together)
    assert accuracy == pytest.approx(number(result, "reward_accuracy")[1], abs=1e-6)


def test_a_reference_that_is_not_the_model_is_refused_before_any_step(
    runs: Any, plan_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter that does not begin at zero: the model without it is not where training starts."""
    judging.wrong_reference(monkeypatch)
    plan = plan_of("DPO")
    with pytest.raises(TrainerError, match=r"the first loss is .*; with a reference that equals the model it is 0\.69"):
        runs.finish(plan)
    assert not Path(plan.output_path).exists()


@pytest.mark.parametrize("method", ["DPO", "KTO"])
def test_the_balance_of_experts_is_no_wrong_reference(
    runs: Any, plan_of: Any, experts_model: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """TRL adds it to the loss. A reference that is wrong is refused all the same."""
    fields = {"modelPath": str(experts_model), "adapter": {"type": "LoRA"}, "training": {"maxSteps": 1}}
    plan = plan_of(method, **fields)
    runs.finish(plan)
    expected = math.log(2) if method == "DPO" else 0.5
    assert points(plan)[0]["loss"] > expected + 1e-3
    judging.wrong_reference(monkeypatch)
    with pytest.raises(TrainerError, match="with a reference that equals the model"):
        runs.finish(plan_of(method, "wrong", **fields))


@pytest.mark.parametrize(
    ("method", "adapter"),
    [
        ("KTO", "None"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (("DPO", "LoRA"), ("DPO", "None"), ("ORPO", "LoRA"), ("Reward", "LoRA"), ("Reward", "None"))
        ),
    ],
)
def test_interrupted_twice_equals_undisturbed(
    runs: Any, plan_of: Any, interrupt: Any, method: str, adapter: str
) -> None:
    common = {"adapter": {"type": adapter}, "training": {"maxSteps": 14, "learningRate": "1e-3"}}
    whole, broken = plan_of(method, "whole", **common), plan_of(method, "broken", **common)
    expected = runs.finish(whole)
    interrupt(broken, 4)
    interrupt(broken, 8)
    result = runs.finish(broken)
    assert result.start_step == 9
    form = "adapter" if adapter == "LoRA" else "full"
    file = "adapter_model.safetensors" if adapter == "LoRA" else "model.safetensors"
    assert runs.curve(broken, form) == runs.curve(whole, form)
    assert (Path(broken.output_path) / form / file).read_bytes() == (Path(whole.output_path) / form / file).read_bytes()
    assert result.numbers == expected.numbers


CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
SAME = {"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"}
GOOD = {"prompt": "Hi", "completion": "Hello", "label": True}


@pytest.mark.parametrize(
    ("method", "rows", "code"),
    [
        ("DPO", [CHAT], "DatasetFormatMismatch"),
        ("ORPO", [{"text": "Hi"}], "DatasetFormatMismatch"),
        ("Reward", [GOOD], "DatasetFormatMismatch"),
        ("KTO", [CHAT], "DatasetFormatMismatch"),
        ("DAPT", [CHAT], "DatasetFormatMismatch"),
        ("SFT", [SAME], "DatasetFormatMismatch"),
        ("DPO", [SAME, SAME], "NoTrainableRows"),
        ("Reward", [SAME], "NoTrainableRows"),
        ("KTO", [GOOD, GOOD, GOOD], "OneSidedData"),
        ("KTO", [{**GOOD, "label": False}] * 3, "OneSidedData"),
        ("DPO", [], "NoTrainableRows"),
        ("DPO", [{"prompt": "Hi", "chosen": "a" * 900, "rejected": "b" * 900}], "NoTrainableRows"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_refused_before_a_weight_is_loaded(
    runs: Any, plan_of: Any, tmp_path: Path, method: str, rows: list[Any], code: str
) -> None:
    plan = plan_of(method, datasets=[split_files.write(tmp_path / "bad.jsonl", rows, "polite")])
    with pytest.raises(TrainerError) as caught:
        runs.finish(plan)
    assert (caught.value.code, caught.value.exit_code) == (code, 65)


@pytest.mark.parametrize(
    ("method", "fields", "words"),
    [
        ("DPO", {"training": {"packing": True}}, "training.packing is for method SFT"),
        ("KTO", {"training": {"batchSize": 1}}, "at least 2 on each rank"),
        ("KTO", {"training": {"microBatchSize": 1}}, "at least 2 on each rank"),
        ("Reward", {"adapter": {"type": "LoRA", "dropout": "0.1"}}, "adapter.dropout: method Reward"),
    ],
)
def test_what_a_method_cannot_be_combined_with(
    runs: Any, plan_of: Any, method: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(TrainerError, match=words) as caught:
        runs.finish(plan_of(method, **fields))
    assert caught.value.code == "ConflictingFields"
