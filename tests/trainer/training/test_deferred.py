"""Losses of ours that replace TRL's, so that numbers stay on the device: bit for bit TRL's loss, and TRL's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import method_plans
import pytest
import trl
from trl.experimental.orpo import ORPOTrainer

from hone_trainer.training.loop import Loop

pytestmark = pytest.mark.trainer


def orpo(trainer: Any, model: Any, inputs: Any) -> tuple[Any, dict[str, float]]:
    return ORPOTrainer.get_batch_loss_metrics(trainer, model, inputs)  # type: ignore[no-any-return]


def reward(trainer: Any, model: Any, inputs: Any) -> tuple[Any, dict[str, float]]:
    loss = trl.RewardTrainer.compute_loss(trainer, model, inputs)
    numbers = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    trainer._metrics["train"].clear()
    return loss, {name: value for name, value in numbers.items() if name != "num_tokens"}


@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize(
    ("variant", "theirs", "block"),
    [("ORPO", orpo, {}), ("Reward", reward, {}), ("Reward", reward, {"reward": {"centerRewards": "0.01"}})],
    ids=["ORPO", "Reward", "Reward, centred"],
)
def test_loss_and_numbers_are_those_of_trl(
    runs: Any,
    make_plan: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_model: Path,
    experts_model: Path,
    variant: str,
    theirs: Any,
    block: Any,
    experts: bool,
) -> None:
    """On each micro batch of a run, also of a mixture of experts, whose routers have a loss in ORPO."""
    step, expected = Loop.training_step, list[dict[str, float]]()

    def compared(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        loss, numbers = theirs(self, model, dict(inputs))
        assert self.compute_loss(model, dict(inputs)).item() == loss.item()
        assert {name: values.pop().item() for name, values in self._kept.items()} == pytest.approx(numbers, rel=1e-6)
        expected.append(numbers)
        return step(self, model, inputs, *args)

    monkeypatch.setattr(Loop, "training_step", compared)
    model = experts_model if experts else tiny_model
    training = {"maxSteps": 2, "batchSize": 8, "microBatchSize": 4}
    plan = method_plans.plan_of(make_plan, variant, tmp_path, model, training=training, modelPath=str(model), **block)
    runs.finish(plan)
    lines = (Path(plan.output_path) / "adapter" / "metrics.jsonl").read_text().splitlines()
    logged = [point for point in map(json.loads, lines) if "loss" in point]
    assert len(expected) == 2 * len(logged) == 4
    for point, first, second in zip(logged, expected[::2], expected[1::2], strict=True):
        for name in first:
            assert point[name] == pytest.approx((first[name] + second[name]) / 2, rel=1e-5, abs=1e-6)
