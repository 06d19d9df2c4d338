"""GRPO and RLOO: whole runs on a tiny model, and what they must be equal to."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from support.runs.curves import points
from support.runs.sampled_sums import FULL, ONCE, sums, sums_plans, write

from hone_api.contract.report import TrainingResult
from hone_trainer.errors import TrainerError

pytestmark = pytest.mark.trainer


@pytest.fixture
def plan_of(make_plan: Any, tmp_path: Path) -> Any:
    return sums_plans(make_plan, tmp_path)


def reward_of(result: TrainingResult) -> tuple[float, float]:
    found = next(n for n in result.numbers if n.name == "reward")
    assert found.base is not None
    return float(found.base), float(found.tuned)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_the_mean_reward_rises(runs: Any, plan_of: Any, seed: int) -> None:
    """By 0.2 above its own start: the share of answers with three vowels, which is about 0.4 at first."""
    rewards = [{"type": "Regex", "regex": {"pattern": "[aeiou].*[aeiou].*[aeiou]", "match": "Search"}}]
    training = {"maxSteps": 16, "batchSize": 64, "learningRate": "5e-3", "seed": seed}
    plan = plan_of(grpo={"rewards": rewards, "generations": 8}, training=training, **ONCE, **FULL)
    base, tuned = reward_of(runs.finish(plan))
    curve = [point["reward"] for point in points(plan)]
    assert mean(curve[-4:]) > mean(curve[:4]) + 0.2
    assert tuned > base + 0.2


@pytest.mark.long
@pytest.mark.parametrize("loss", ["GSPO", "CISPO"])
def test_a_loss_with_another_ratio_learns(runs: Any, plan_of: Any, loss: str) -> None:
    """With two steps on the same samples, so that the ratio is not 1 in every second one."""
    rewards = [{"type": "Regex", "regex": {"pattern": "[aeiou].*[aeiou].*[aeiou]", "match": "Search"}}]
    training = {"maxSteps": 24, "batchSize": 64, "learningRate": "5e-3"}
    grpo = {"rewards": rewards, "generations": 8, "loss": loss, "iterations": 2}
    base, tuned = reward_of(runs.finish(plan_of(grpo=grpo, training=training, **ONCE, **FULL)))
    assert tuned > base + 0.15


SETTINGS_OF_PAPERS: dict[str, dict[str, Any]] = {
    "DAPO": {},
    "GSPO": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    "CISPO": {"loss_type": "cispo", "epsilon_high": 5.0},
}
"""Our losses -> how TRL's documentation reproduces the papers, fields of its GRPOConfig."""


@pytest.mark.parametrize("loss", SETTINGS_OF_PAPERS)
def test_the_plain_script_of_trl_has_the_same_curve(runs: Any, plan_of: Any, tmp_path: Path, loss: str) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    def vowels(completions: list[Any], **_: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        return [sum(c in "aeiou" for c in text) / max(len(text), 1) for text in texts]

    plan = plan_of(
        held_out=False,
        adapter={"type": "None"},
        grpo={"beta": "0.04", "iterations": 2, "loss": loss},
        training={"maxSteps": 10, "learningRate": "1e-3", "scheduler": "Linear", "warmupRatio": "0"},
    )
    runs.finish(plan)
    rows = [json.loads(line) for line in Path(plan.datasets[0].path).read_text().splitlines()]
    trainer = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(plan.model_path, dtype=torch.float32),
        vowels,
        GRPOConfig(
            output_dir=str(tmp_path / "plain"),
            use_cpu=True,
            bf16=False,
            max_steps=10,
            learning_rate=1e-3,
            lr_scheduler_type="linear",
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            num_generations=4,
            num_iterations=2,
            max_completion_length=8,
            beta=0.04,
            **SETTINGS_OF_PAPERS[loss],
            seed=plan.training.seed,
            data_seed=plan.training.seed,
            activation_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(plan.model_path),
    )
    trainer.train()
    plain = [point for point in trainer.state.log_history if "loss" in point]
    ours = points(plan)
    assert len(ours) == len(plain) == 10
    for name in ("loss", "grad_norm", "reward", "reward_std", "kl", "completions/mean_length"):
        mine, theirs = ([point[name] for point in points if name in point] for points in (ours, plain))
        assert len(mine) == (5 if name in ("reward", "reward_std", "completions/mean_length") else 10)
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-6), name
    least = 1e-4 if loss == "GSPO" else 1e-2  # the ratio of a whole answer stays near 1
    assert max(abs(point["loss"]) for point in ours) > least, "the second step on the same samples has a loss"


@pytest.mark.parametrize("advantage", ["Group", pytest.param("LeaveOneOut", marks=pytest.mark.long)])
def test_a_resumed_run_is_the_same_run(runs: Any, plan_of: Any, interrupt: Any, tmp_path: Path, advantage: str) -> None:
    """Stopped in the third epoch, between the two steps on the same samples, and at the border of two samplings."""
    fields: dict[str, Any] = {
        "grpo": {"advantage": advantage, "iterations": 2, "beta": "0.1"},
        "training": {"maxSteps": 22, "batchSize": 8, "microBatchSize": 4},
        "rows": {"datasets": [write(tmp_path / "few.jsonl", sums(8))]},
        "checkpoints": {"everySteps": 1},
        "held_out": False,
    }
    whole, broken = plan_of("whole", **fields), plan_of("broken", **fields)
    runs.finish(whole)
    interrupt(broken, 16)
    interrupt(broken, 19)
    assert runs.finish(broken).start_step == 20
    assert runs.curve(broken) == runs.curve(whole)
    weights = "adapter/adapter_model.safetensors"
    assert (Path(broken.output_path) / weights).read_bytes() == (Path(whole.output_path) / weights).read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "DAPO"},
        {"advantage": "LeaveOneOut"},
        *(pytest.param({"loss": loss}, marks=pytest.mark.long) for loss in ("DrGRPO", "GRPO", "GSPO", "CISPO")),
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_rows_of_a_pass_change_nothing(runs: Any, plan_of: Any, options: dict[str, str]) -> None:
    """So memory may decide how many there are."""
    curves = []
    for micro in (8, 2):
        training = {"maxSteps": 4, "batchSize": 8, "microBatchSize": micro}
        plan = plan_of(f"micro-{micro}", held_out=False, grpo={"iterations": 2, **options}, training=training)
        runs.finish(plan)
        curves.append([loss for _, loss, _ in runs.curve(plan)])
    assert any(curves[0])
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


@pytest.mark.long
def test_rloo_learns(runs: Any, plan_of: Any) -> None:
    plan = plan_of(
        grpo={"advantage": "LeaveOneOut", "beta": "0.01"},
        training={"maxSteps": 20, "batchSize": 32, "learningRate": "5e-3"},
        **ONCE,
        **FULL,
    )
    base, tuned = reward_of(runs.finish(plan))
    assert tuned > base + 0.2


def test_an_epoch_takes_each_sample_as_often_as_there_are_iterations(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    rows = {"datasets": [write(tmp_path / "few.jsonl", sums(8))]}
    plan = plan_of(grpo={"iterations": 2}, rows=rows, held_out=False, training={"maxSteps": None, "epochs": "1"})
    assert runs.finish(plan).steps == 4
    assert [point["epoch"] for point in points(plan)] == [0.25, 0.5, 0.75, 1]


def test_fewer_prompts_than_a_step_wants_are_refused(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    few = {"datasets": [write(tmp_path / "few.jsonl", sums(3))]}
    with pytest.raises(TrainerError, match=r"batchSize 16 at grpo.generations 4 wants 4 .* there are 3") as raised:
        runs.finish(plan_of(rows=few))
    assert raised.value.code == "InvalidConfiguration"


def test_every_wrong_number_is_named_at_once(runs: Any, plan_of: Any) -> None:
    plan = plan_of(
        grpo={"generations": 5, "rewards": [{"type": "Number"}, {"type": "Number"}], "maxCompletionLength": 64},
        training={"batchSize": 16, "maxLength": 64},
    )
    with pytest.raises(TrainerError) as raised:
        runs.finish(plan)
    assert raised.value.code == "ConflictingFields"
    for words in (
        "batchSize 16 counts samples",
        "maxLength 64 counts prompt and answer",
        "more than one is named number",
    ):
        assert words in raised.value.message


def test_vllm_is_refused_in_an_image_without_it(runs: Any, plan_of: Any) -> None:
    with pytest.raises(TrainerError, match="no vLLM: use trainer-vllm, or engine Transformers") as raised:
        runs.finish(plan_of(grpo={"generation": {"engine": "VLLM"}}))
    assert raised.value.code == "NotSupportedYet"
