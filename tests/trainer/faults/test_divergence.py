"""A loss that diverges: an attempt with half the learning rate goes on from the last checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone_api.blocks.placement import MAX_RATE_HALVINGS
from hone_trainer.training import learning_rate

RATE = 1e-3


def rates(plan: Any) -> dict[int, float]:
    """Learning rate of each step."""
    lines = (Path(plan.output_path) / "adapter" / "metrics.jsonl").read_text().splitlines()
    return {p["step"]: p["learning_rate"] for p in map(json.loads, lines) if "learning_rate" in p}


@pytest.fixture
def unstable(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the sixth step on, the loss of a rate above the half is not a number."""
    from hone_trainer.training.loop import Loop

    step = Loop.training_step

    def training_step(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        loss = step(self, model, inputs, *rest)
        if self.state.global_step >= 5 and self.optimizer.param_groups[0]["initial_lr"] > RATE / 2:
            self._micro_batches[-1] = (inputs, loss.detach() * float("nan"))
        return loss

    monkeypatch.setattr(Loop, "training_step", training_step)


@pytest.mark.trainer
@pytest.mark.usefixtures("unstable")
def test_half_the_rate_goes_on_from_the_last_checkpoint(runs: Any, make_plan: Any) -> None:
    from hone_trainer.errors import TrainerError

    training = {"learningRate": str(RATE), "scheduler": "Linear", "warmupRatio": "0"}
    first = make_plan(exportFolder="attempt-1", training=training, learningRateHalvings=0)
    with pytest.raises(TrainerError, match="the loss is nan at step 6") as caught:
        runs.finish(first)
    assert caught.value.code == "Diverged"
    assert not (Path(first.work_path) / "result.json").exists()  # it is not the end of the run

    second = make_plan(attempt=2, exportFolder="attempt-2", training=training, learningRateHalvings=1)
    result = runs.finish(second)
    assert (result.start_step, result.resolved["learningRate"]) == (4, f"{RATE / 2:g}")
    assert [a for a in result.advice if "halved once, to 0.0005" in a]
    curve = rates(second.model_copy(update={"output_path": f"{second.output_path}/attempt-2"}))
    total = result.resolved["totalSteps"]
    for number in range(5, total + 1):
        assert curve[number] == pytest.approx(RATE / 2 * (total - number + 1) / total)
    assert curve[4] == pytest.approx(RATE * (total - 3) / total)


@pytest.mark.trainer
@pytest.mark.parametrize(("halvings", "final"), [(None, True), (0, False), (MAX_RATE_HALVINGS, True)])
def test_divergence_ends_the_run_for_good_where_nothing_is_lowered(
    make_plan: Any, halvings: int | None, final: bool
) -> None:
    from hone_api.contract.termination import FailureReport, TerminationMessage
    from hone_trainer.store import finished

    plan = make_plan(exportFolder="attempt-1", learningRateHalvings=halvings)
    finished.keep(plan, TerminationMessage(failure=FailureReport(code="Diverged", message="the loss is nan")))
    assert (Path(plan.work_path) / "result.json").exists() is final


@pytest.mark.trainer
def test_a_wrapped_schedule_gets_the_rate_at_its_present_step() -> None:
    import torch

    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)], lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for _ in range(3):
        optimizer.step()
        schedule.step()
    learning_rate.set_rate(SimpleNamespace(scheduler=schedule), 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]
    schedule.step()
    assert schedule.get_last_lr() == [0.1, 0.1]
