"""Losses of ours that replace TRL's, so that numbers stay on the device: bit for bit TRL's loss, and TRL's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trl
from support.runs import method_plans
from support.runs.curves import points
from trl.experimental.orpo import ORPOTrainer

from hone_trainer.training.loop import Loop

pytestmark = pytest.mark.trainer


def orpo(trainer: Any, model: Any, inputs: Any) -> tuple[Any, dict[str, float]]:
    return ORPOTrainer.get_batch_loss_metrics(trainer, model, inputs)


def reward(trainer: Any, model: Any, inputs: Any) -> tuple[Any, dict[str, float]]:
    return noted(trainer, trl.RewardTrainer.compute_loss(trainer, model, inputs))


def dpo(trainer: Any, model: Any, inputs: Any) -> tuple[Any, dict[str, float]]:
    return noted(trainer, trl.DPOTrainer._compute_loss(trainer, model, inputs, False))


def kto(trainer: Any, model: Any, inputs: Any) -> tuple[Any, dict[str, float]]:
    return noted(trainer, trl.KTOTrainer._compute_loss(trainer, model, inputs, False))


def noted(trainer: Any, loss: Any) -> tuple[Any, dict[str, float]]:
    """With TRL's numbers of one micro batch."""
    numbers = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    trainer._metrics["train"].clear()
    return loss, {name: value for name, value in numbers.items() if name != "num_tokens"}


@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize(
    ("variant", "theirs", "block"),
    [
        ("ORPO", orpo, {}),
        ("Reward", reward, {}),
        ("Reward", reward, {"reward": {"centerRewards": "0.01"}}),
        *(("DPO", dpo, {"dpo": {"loss": loss}}) for loss in ("Sigmoid", "IPO", "Hinge")),
        ("DPO", dpo, {"adapter": {"type": "None"}}),
        ("KTO", kto, {}),
        ("KTO", kto, {"adapter": {"type": "None"}}),
    ],
    ids=[
        *("ORPO", "Reward", "Reward, centred", "DPO", "IPO", "hinge", "DPO of all weights"),
        *("KTO", "KTO of all weights"),
    ],
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
    """On each micro batch of a run, also of a mixture of experts, whose routers have a loss. KTO's rows and ORPO's
    tokens are added up in another order. ORPO's mean logits are of the answers' tokens; TRL's of padding as well."""
    step, sums = Loop.training_step, list[dict[str, tuple[float, float]]]()

    def compared(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        self.model.train()  # TRL keeps numbers of training and of evaluation apart
        loss, numbers = theirs(self, model, dict(inputs))
        ours = self.compute_loss(model, dict(inputs))
        reordered = variant in ("KTO", "ORPO")
        assert ours.item() == (pytest.approx(loss.item(), rel=1e-6) if reordered else loss.item())
        kept = {name: tuple(map(float, values.pop())) for name, values in self._kept.items()}
        means = {name: total / count for name, (total, count) in kept.items() if count}
        logged = self.logged(means)
        if variant == "ORPO":
            assert logged.keys() == numbers.keys()
            logged |= {name: value for name, value in numbers.items() if name.startswith("logits/")}
        assert logged == pytest.approx(numbers, rel=1e-5, abs=1e-6)
        sums.append(kept)
        return step(self, model, inputs, *args)

    monkeypatch.setattr(Loop, "training_step", compared)
    model = experts_model if experts else tiny_model
    training = {"maxSteps": 2, "batchSize": 8, "microBatchSize": 4}
    plan = method_plans.plan_of(make_plan, variant, tmp_path, model, training=training, modelPath=str(model), **block)
    runs.finish(plan)
    logged = points(plan)
    assert len(sums) == 2 * len(logged) == 4
    for point, first, second in zip(logged, sums[::2], sums[1::2], strict=True):
        for name in first:
            total, count = (a + b for a, b in zip(first[name], second[name], strict=True))
            assert point[name] == pytest.approx(total / count, rel=1e-5, abs=1e-6)
        if variant == "KTO":
            assert point["rewards/margins"] == pytest.approx(
                point["rewards/chosen"] - point["rewards/rejected"], abs=1e-6
            )
