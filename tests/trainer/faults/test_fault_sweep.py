"""SIGTERM and SIGKILL at every step: the run ends in the weights of an undisturbed one, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.training import checkpoints

pytestmark = [pytest.mark.trainer, pytest.mark.long]
STEPS = 30
COMMON: dict[str, Any] = {
    "adapter": {"type": "LoRA", "dropout": "0.1"},
    "training": {"maxSteps": STEPS},
    "evaluation": {"everySteps": STEPS},
}
"""With dropout, so that the state of the random generators counts; over the borders of epochs (10 steps)."""
Run = tuple[bytes, list[tuple[int, float, float]]]


def outcome(runs: Any, plan: Any) -> Run:
    """Weights, and the loss of every step."""
    return (Path(plan.output_path) / "adapter" / "adapter_model.safetensors").read_bytes(), runs.curve(plan)


UNDISTURBED: list[Run] = []


@pytest.fixture
def undisturbed(runs: Any, make_plan: Any) -> Run:
    """The run that nothing disturbs, once for all tests of a process."""
    if not UNDISTURBED:
        whole = make_plan("whole", **COMMON)
        runs.finish(whole)
        UNDISTURBED.append(outcome(runs, whole))
    return UNDISTURBED[0]


def saved(plan: Any) -> checkpoints.RunCheckpoints:
    return checkpoints.RunCheckpoints(Path(plan.work_path) / "checkpoints", STEPS)


@pytest.mark.faults("T1")
@pytest.mark.parametrize("step", range(2, STEPS - 1))
def test_sigterm_at_a_step_loses_none(runs: Any, make_plan: Any, interrupt: Any, undisturbed: Run, step: int) -> None:
    plan = make_plan("stopped", **{**COMMON, "checkpoints": {"everySteps": step, "keep": STEPS}})
    stopped = interrupt(plan, step)
    assert stopped.step == saved(plan).steps()[-1]
    assert runs.finish(plan).start_step == stopped.step
    assert outcome(runs, plan) == undisturbed


@pytest.mark.faults("T2")
@pytest.mark.parametrize("point", ["before-rename", "after-rename"])
@pytest.mark.parametrize("step", range(2, STEPS - 1))
def test_sigkill_at_a_step_loses_one_interval_at_most(
    runs: Any, make_plan: Any, undisturbed: Run, step: int, point: str
) -> None:
    """The process kills itself right before or after the checkpoint of this step becomes complete."""
    plan = make_plan("killed", **{**COMMON, "checkpoints": {"everySteps": step, "keep": STEPS}})
    process = runs.start(plan, HONE_FAILPOINT=point)
    assert runs.wait(plan, process, -signal.SIGKILL) is None
    assert saved(plan).steps() == ([step] if point == "after-rename" else [])
    assert runs.finish(plan).start_step == (step if point == "after-rename" else 0)
    assert outcome(runs, plan) == undisturbed
