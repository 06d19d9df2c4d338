"""DPO, IPO, hinge, KTO, ORPO and reward models: whole runs on a tiny model, and what they must be equal to."""

from __future__ import annotations

import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from hone_api.report import TrainingResult

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


def write(path: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """A split's file, as the plan names it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return {"name": "polite", "split": path.stem, "path": str(path), "digest": digest}


@pytest.fixture
def plan_of(make_plan: Any, tmp_path: Path) -> Any:
    """Makes a plan on the pairs for a method; keyword arguments replace fields."""
    rows = preferences()
    train, validation = write(tmp_path / "train.jsonl", rows[:80]), write(tmp_path / "validation.jsonl", rows[80:])

    def make(method: str, name: str = "run", **fields: Any) -> Any:
        datasets = {"datasets": [train], "evaluationDatasets": [validation], **fields}
        return make_plan(name, method=method, **datasets)

    return make


def number(result: TrainingResult, name: str) -> tuple[float, float]:
    found = next(n for n in result.numbers if n.name == name)
    assert found.base is not None
    return float(found.base), float(found.tuned)


def logs(plan: Any, form: str) -> list[dict[str, float]]:
    lines = (Path(plan.output_path) / form / "metrics.jsonl").read_text().splitlines()
    return [point for point in map(json.loads, lines) if "loss" in point]


FIRST = {"Sigmoid": math.log(2), "IPO": (1 / (2 * 0.1)) ** 2, "Hinge": 1.0}


@pytest.mark.parametrize("loss", ["Sigmoid", "IPO", "Hinge"])
@pytest.mark.parametrize("adapter", ["LoRA", "None"])
def test_dpo_begins_at_the_loss_of_equal_models_and_learns(runs: Any, plan_of: Any, adapter: str, loss: str) -> None:
    plan = plan_of("DPO", dpo={"loss": loss}, adapter={"type": adapter}, training={"learningRate": "2e-3"})
    result = runs.finish(plan)
    curve = logs(plan, "adapter" if adapter == "LoRA" else "full")
    assert curve[0]["loss"] == pytest.approx(FIRST[loss], rel=1e-3)
    assert curve[0]["rewards/margins"] == pytest.approx(0, abs=1e-3)
    base, tuned = number(result, "loss")
    assert base == pytest.approx(FIRST[loss], rel=1e-4)
    assert tuned < base
    assert number(result, "reward_accuracy")[0] == pytest.approx(0.5)
    assert number(result, "reward_accuracy")[1] > 0.9
    assert number(result, "reward_margin")[1] > 0
    assert result.samples[0].prompt.startswith("Where is")


@pytest.mark.parametrize("adapter", ["LoRA", "None"])
def test_kto_learns_from_judged_answers_and_from_pairs(runs: Any, plan_of: Any, adapter: str) -> None:
    plan = plan_of("KTO", adapter={"type": adapter}, training={"learningRate": "2e-3"})
    result = runs.finish(plan)
    curve = logs(plan, "adapter" if adapter == "LoRA" else "full")
    assert curve[0]["loss"] == pytest.approx(0.5, rel=1e-3)
    base, tuned = number(result, "loss")
    assert base == pytest.approx(0.5, rel=1e-4)
    assert tuned < base
    assert number(result, "reward_accuracy")[0] == pytest.approx(0.5)
    assert number(result, "reward_accuracy")[1] > 0.7
    assert number(result, "reward_margin")[1] > 0


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
    assert [a.format for a in result.artifacts] == (["full"] if adapter == "None" else ["adapter", "merged"])
