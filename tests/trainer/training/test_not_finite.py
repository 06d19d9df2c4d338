"""A number that is not finite ends the run of every method as Diverged, with its rows, before the weights change."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.runs import method_plans

from hone_trainer.errors import TrainerError
from hone_trainer.training.loop import Loop

pytestmark = pytest.mark.trainer
BAD_STEP = 2


def in_the_loss(trainer: Any, loss: Any) -> Any:
    return loss * math.nan


def in_the_gradient(trainer: Any, loss: Any) -> Any:
    """The loss itself stays finite."""
    weight = next(weight for weight in trainer.model.parameters() if weight.requires_grad)
    weight.register_hook(lambda gradient: gradient * math.nan)
    return loss


def in_the_weights(trainer: Any) -> None:
    """Before the step, and so before the answers of methods that sample."""
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.data.fill_(math.nan)


def inject(patch: pytest.MonkeyPatch, where: Any) -> None:
    """At step BAD_STEP, in whichever trainer a method makes."""
    attach, step = Loop.attach, Loop.training_step

    def attached(self: Any, run: Any) -> None:
        attach(self, run)
        if where is in_the_weights:
            return
        theirs = self.compute_loss

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            loss = theirs(*args, **kwargs)
            return where(self, loss) if self.state.global_step + 1 == BAD_STEP else loss

        self.compute_loss = compute_loss

    def stepped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if where is in_the_weights and self.state.global_step + 1 == BAD_STEP:
            in_the_weights(self)
        return step(self, *args, **kwargs)

    patch.setattr(Loop, "attach", attached)
    patch.setattr(Loop, "training_step", stepped)


PLACES = (in_the_loss, in_the_gradient, in_the_weights)


@pytest.mark.faults("T6")
@pytest.mark.parametrize(
    ("variant", "where"),
    [
        pytest.param(variant, where, marks=() if variant == "SFT" or i % len(PLACES) == j else pytest.mark.long)
        for i, variant in enumerate(method_plans.VARIANTS)
        for j, where in enumerate(PLACES)
    ],
)
def test_it_ends_as_diverged_with_the_rows(
    runs: Any,
    make_plan: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_model: Path,
    variant: str,
    where: Any,
) -> None:
    inject(monkeypatch, where)
    plan = method_plans.plan_of(make_plan, variant, tmp_path, tiny_model, checkpoints={"everySteps": 1})
    with pytest.raises(TrainerError) as caught:
        runs.finish(plan)
    error = caught.value
    assert (error.code, error.exit_code, error.step) == ("Diverged", 70, BAD_STEP), error.message
    named = re.search(r"at step 2, rows ([\d, ]+)( and more)? of", error.message)
    assert named, error.message
    assert {int(number) for number in named[1].split(", ")} <= set(range(1, 33))
    (checkpoint,) = Path(plan.work_path).glob("checkpoints/step-*")  # of the step before, and finite
    assert all(tensor.isfinite().all() for tensor in load_file(checkpoint / "adapter_model.safetensors").values())
    assert not Path(plan.output_path).exists()
