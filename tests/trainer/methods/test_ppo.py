"""PPO: reward model and policy, whole runs on a tiny model; what is sampled, refused, kept and exported."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.runs import judging, split_files
from support.runs.curves import number, points

from hone_trainer import device
from hone_trainer.artifacts import servable
from hone_trainer.errors import TrainerError
from hone_trainer.models import base_model, generate

pytestmark = pytest.mark.trainer
VOWELS, CONSONANTS = "aeiou", "bcdfghklmnprst"


def question(n: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"What is {n} and {n % 7}?"}]


def tastes() -> list[dict[str, Any]]:
    """96 pairs: letters that are vowels are preferred, and short answers."""
    rng = random.Random(7)

    def answer(letters: str, least: int, most: int) -> list[dict[str, str]]:
        content = "".join(rng.choice(letters) for _ in range(rng.randint(least, most)))
        return [{"role": "assistant", "content": content}]

    return [
        {"prompt": question(n), "chosen": answer(VOWELS, 1, 8), "rejected": answer(CONSONANTS, 1, 8)} for n in range(96)
    ]


@pytest.fixture(scope="module")
def judge_path(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A reward model that Hone has trained to like vowels."""
    from hone_api.plan import TrainingPlan
    from hone_trainer.run import pipeline
    from hone_trainer.signals import Stop

    folder, rows = tmp_path_factory.mktemp("judge"), tastes()
    plan = TrainingPlan.model_validate(
        {
            "run": "judge",
            "method": "Reward",
            "modelPath": str(tiny_model),
            "modelUri": "hf://tests/tiny@main",
            "datasets": [split_files.write(folder / "train.jsonl", rows[:80], "tastes")],
            "evaluationDatasets": [split_files.write(folder / "validation.jsonl", rows[80:], "tastes")],
            "adapter": {"type": "None"},
            "training": {"maxSteps": 20, "batchSize": 16, "learningRate": "1e-3"},
            "output": {"modelName": "judge"},
            "workPath": str(folder / "work"),
            "outputPath": str(folder / "out"),
        }
    )
    result = pipeline.run_plan(plan, Stop())
    assert result is not None
    accuracy = next(n for n in result.numbers if n.name == "reward_accuracy")
    assert float(accuracy.tuned) >= 0.9
    return folder / "out" / "full"


@pytest.fixture
def plan_of(make_plan: Any, tmp_path: Path, judge_path: Path) -> Any:
    """Makes a plan of PPO by that reward model; keyword arguments replace fields, `ppo` and `training` are merged."""
    rows = [{"prompt": question(n)} for n in range(56)]
    train, validation = (
        split_files.write(tmp_path / "train.jsonl", rows[:40], "sums"),
        split_files.write(tmp_path / "validation.jsonl", rows[40:], "sums"),
    )

    def make(name: str = "run", ppo: dict[str, Any] | None = None, judge: Path = judge_path, **fields: Any) -> Any:
        block = {"rewardModelVersion": "judge-v1", "maxCompletionLength": 8, "iterations": 2, **(ppo or {})}
        training = {"maxSteps": 8, "batchSize": 16, "learningRate": "5e-3", **fields.pop("training", {})}
        datasets = {"datasets": [train], "evaluationDatasets": [validation]}
        models = {"judge-v1": {"path": str(judge)}}
        return make_plan(name, method="PPO", ppo=block, training=training, models=models, **datasets, **fields)

    return make


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_the_mean_reward_rises_and_the_kl_is_reported(runs: Any, plan_of: Any, seed: int) -> None:
    plan = plan_of(
        ppo={"kl": "0.01"},
        adapter={"type": "None"},
        training={"maxSteps": 32, "batchSize": 16, "learningRate": "1e-2", "seed": seed},
        evaluation={"everySteps": 32, "samples": 2},
    )
    result = runs.finish(plan)
    curve = points(plan)
    sampled = [point for point in curve if "reward" in point]
    print([round(p["reward"], 2) for p in sampled], [round(p["kl"], 2) for p in sampled])
    assert len(sampled) == 16
    first, last = (sum(point["reward"] for point in part) / 4 for part in (sampled[:4], sampled[-4:]))
    assert last > first + 0.25
    assert number(result, "reward")[1] > number(result, "reward")[0] + 0.4
    assert sampled[0]["kl"] == pytest.approx(0, abs=1e-3)
    assert sampled[-1]["kl"] > 0.01
    assert number(result, "kl")[0] == pytest.approx(0, abs=1e-5)
    assert number(result, "kl")[1] > 0.01
    assert curve[0]["clip_fraction"] == 0, "the first step is taken from where the answers were sampled"
    assert curve[0]["policy_loss"] == pytest.approx(0, abs=1e-3), "the mean of whitened advantages"
    assert curve[0]["entropy"] > 0
    assert all(p["value_loss"] >= 0 for p in curve)
    assert result.samples[0].tuned is not None


def test_an_adapter_learns_against_the_model_without_it(runs: Any, plan_of: Any) -> None:
    result = runs.finish(plan_of(ppo={"kl": "0.01"}, training={"maxSteps": 12, "learningRate": "2e-2"}))
    assert number(result, "reward")[1] > number(result, "reward")[0] + 0.1
    assert number(result, "kl")[0] == pytest.approx(0, abs=1e-5)
    assert number(result, "kl")[1] > 0.01


@pytest.mark.parametrize("adapter", ["LoRA", "None"])
def test_in_bfloat16_the_policy_begins_as_its_reference(runs: Any, plan_of: Any, adapter: str) -> None:
    if not device.here().bf16:
        pytest.skip("this CPU does not multiply in bfloat16")
    plan = plan_of(adapter={"type": adapter}, training={"maxSteps": 2, "precision": "BFloat16"})
    result = runs.finish(plan)
    assert points(plan)[0]["kl"] == 0
    assert number(result, "kl")[0] == 0


@pytest.mark.long
def test_a_strong_pull_keeps_the_policy_near_its_reference(runs: Any, plan_of: Any) -> None:
    training = {"maxSteps": 16, "learningRate": "1e-3"}
    free, held = (plan_of(name, {"kl": kl}, training=training) for name, kl in (("free", "0"), ("held", "5")))
    loose, tight = number(runs.finish(free), "kl")[1], number(runs.finish(held), "kl")[1]
    assert tight < loose / 2


@pytest.mark.parametrize("adapter", ["LoRA", "None"])
def test_a_resumed_run_is_the_same_run(runs: Any, plan_of: Any, interrupt: Any, adapter: str) -> None:
    """Stopped between two steps on the same answers, in the first epoch (of 4 steps) and in the second, with a KL
    coefficient that changes."""
    common = {"ppo": {"targetKl": "0.5"}, "adapter": {"type": adapter}, "training": {"maxSteps": 10}}
    whole, broken = (plan_of(name, **common, checkpoints={"everySteps": 3}) for name in ("whole", "broken"))
    expected = runs.finish(whole)
    interrupt(broken, 3)
    interrupt(broken, 6)
    result = runs.finish(broken)
    form = "adapter" if adapter == "LoRA" else "full"
    file = "adapter_model.safetensors" if adapter == "LoRA" else "model.safetensors"
    assert result.start_step > 0
    assert runs.curve(broken, form) == runs.curve(whole, form)
    assert (Path(broken.output_path) / form / file).read_bytes() == (Path(whole.output_path) / form / file).read_bytes()
    assert result.numbers == expected.numbers


@pytest.mark.parametrize("adapter", ["LoRA", "None", "QLoRA"])
def test_the_value_head_is_not_exported(runs: Any, plan_of: Any, adapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artifact is a plain language model, or a plain adapter of one, for the libraries."""
    from peft import PeftModel
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    checked: list[Path] = []
    check = servable.check
    monkeypatch.setattr(servable, "check", lambda folder, *base: checked.append(folder) or check(folder, *base))
    merge = {"output": {"modelName": "tiny", "merge": adapter != "None"}}
    plan = plan_of(adapter={"type": adapter}, training={"maxSteps": 2}, **merge)
    runs.finish(plan)
    out = Path(plan.output_path)
    for file in out.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            assert not any("value_head" in name for name in tensors.keys())  # noqa: SIM118 - no mapping
    if adapter == "None":
        AutoModelForCausalLM.from_pretrained(out / "full")
        return
    assert checked == [out / "adapter"], "PEFT loads it"
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["modules_to_save"] is None
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(plan.model_path), out / "adapter")
    AutoModelForCausalLM.from_pretrained(out / "merged")


def test_points_between_base_and_policy_are_measured(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    texts = [{"text": f"The sum of {n} and {n} is {2 * n}."} for n in range(8)]
    kept = split_files.write(tmp_path / "kept" / "validation.jsonl", texts, "places")
    retention = {"datasets": [{"name": "places", "split": "validation"}], "interpolate": True}
    plan = plan_of(
        adapter={"type": "None"},
        training={"maxSteps": 2},
        evaluation={"everySteps": 2, "samples": 0, "retention": retention},
        retentionDatasets=[kept],
    )
    result = runs.finish(plan)
    assert {(n.purpose, n.name) for n in result.numbers} >= {("HeldOut", "reward"), ("Retention", "perplexity")}


def test_two_ranks_learn_together(runs: Any, plan_of: Any) -> None:
    plan = plan_of(processesPerNode=2, training={"maxSteps": 4})
    result = runs.wait(plan, runs.start(runs.encoded(plan))).result
    assert result.resolved["worldSize"] == 2
    assert points(plan)[0]["clip_fraction"] == 0
    assert number(result, "kl")[1] > 0


def test_answers_are_sampled_as_the_model_says_whatever_its_generation_config_says(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    inputs = generate.left_padded([[7, 8, 9], [7]], 0)

    def answers() -> Any:
        torch.manual_seed(0)
        return generate.sampled(network, inputs, temperature=1.0, pad_id=0, stop_ids=frozenset({2}), longest=8)

    plain = answers()
    network.generation_config.update(top_k=1, top_p=0.1, min_p=0.9, repetition_penalty=5.0, temperature=0.01)
    assert torch.equal(answers(), plain)
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def changed(judge: Path, target: Path, **tokenizer: Any) -> Path:
    shutil.copytree(judge, target)
    loaded = base_model.open_base(target, head="Reward").tokenizer
    if tokens := tokenizer.pop("tokens", None):
        loaded.add_tokens(tokens)
    for name, value in tokenizer.items():
        setattr(loaded, name, value)
    loaded.save_pretrained(target)
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [({"tokens": ["more"]}, "another vocabulary"), ({"chat_template": "{{ messages }}"}, "another chat template")],
)
def test_a_reward_model_with_another_tokenizer_is_refused(
    runs: Any, plan_of: Any, judge_path: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(TrainerError, match=words) as caught:
        runs.finish(plan_of(judge=changed(judge_path, tmp_path / "judge", **change)))
    assert caught.value.code == "UnsupportedModel"
    assert "judge-v1" in str(caught.value)


def test_a_language_model_is_no_judge(runs: Any, plan_of: Any, tiny_model: Path) -> None:
    with pytest.raises(TrainerError, match="LlamaForCausalLM is not a reward model") as caught:
        runs.finish(plan_of(judge=tiny_model))
    assert caught.value.code == "UnsupportedModel"


def test_a_reward_model_that_distinguishes_nothing_is_refused(
    runs: Any, plan_of: Any, judge_path: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    constant = Path(shutil.copytree(judge_path, tmp_path / "judge"))
    weights = load_file(constant / "model.safetensors")
    weights["score.weight"].zero_()
    save_file(weights, constant / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainerError, match="judge-v1 gives every answer of the first step the reward 0") as caught:
        runs.finish(plan_of(judge=constant))
    assert caught.value.code == "RewardConstant"


def test_a_policy_that_runs_away_is_stopped(runs: Any, plan_of: Any) -> None:
    plan = plan_of(ppo={"kl": "0", "maxKl": "0.01", "iterations": 1}, training={"learningRate": "1e-1"})
    with pytest.raises(TrainerError, match=r"nats at step \d, above ppo.maxKl 0.01: raise ppo.kl") as caught:
        runs.finish(plan)
    assert caught.value.code == "Diverged"


def test_a_reference_that_is_not_the_model_is_refused(runs: Any, plan_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judging.wrong_reference(monkeypatch)
    with pytest.raises(TrainerError, match="of equal models it is 0") as caught:
        runs.finish(plan_of())
    assert caught.value.code == "ReferenceMismatch"


def test_a_loss_that_is_not_finite_names_its_rows(
    runs: Any, plan_of: Any, judge_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reward model that answers infinity for one conversation."""
    from hone_trainer.methods.rl import judge

    score = judge.ConversationReward.__call__

    def infinite(self: Any, conversations: Any) -> Any:
        found = score(self, conversations)
        found[0] = float("inf")
        return found

    monkeypatch.setattr(judge.ConversationReward, "__call__", infinite)
    with pytest.raises(TrainerError, match=r"rows \d+") as caught:
        runs.finish(plan_of().model_copy(update={"evaluation_datasets": []}))
    assert caught.value.code == "Diverged"


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"training": {"batchSize": 64}}, "InvalidConfiguration", "more than the 40 prompts"),
        ({"training": {"maxLength": 8}}, "ConflictingFields", "above ppo.maxCompletionLength 8"),
    ],
)
def test_what_cannot_work_is_refused(runs: Any, plan_of: Any, fields: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(TrainerError, match=words) as caught:
        runs.finish(plan_of(**fields))
    assert caught.value.code == code


def test_a_reward_model_is_wanted_and_not_found(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        runs.finish(plan_of(judge=tmp_path))
    assert caught.value.code == "ModelNotFound"


def test_tokenizers_are_compared_by_what_changes_ids() -> None:
    from hone_trainer.methods.rl.judge import unlike

    def tokenizer(words: dict[str, int], template: str) -> Any:
        return SimpleNamespace(get_vocab=lambda: words, chat_template=template)

    ours = tokenizer({"a": 0}, "t")
    assert unlike(ours, tokenizer({"a": 0}, "t")) is None
    assert unlike(ours, tokenizer({"a": 1}, "t")) == "vocabulary"
    assert unlike(ours, tokenizer({"a": 0}, "u")) == "chat template"
