"""The clock of a run's node jumps while it trains: the same weights, no time is negative, nothing ends early."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster.progressing import Reporting, reporting
from support.runs.forks import RUN, Forks
from support.runs.jumping_clock import HOUR, JUMPED, STEPPED, NodeClock

from hone_api.contract.termination import TerminationMessage
from hone_trainer.training.checkpoints import RunCheckpoints

pytestmark = pytest.mark.trainer
STEPS = 12
COMMON: dict[str, Any] = {
    "adapter": {"type": "LoRA", "dropout": "0.1"},
    "training": {"maxSteps": STEPS},
    "evaluation": {"everySteps": 4},
}
"""With dropout, so that the state of the random generators counts."""
TO_AND_FRO = {"step 1": 5 * HOUR, "step 3": -7 * HOUR, "save 4": 30 * HOUR, "step 5": -HOUR / 60, "save 8": 2 * HOUR}
BACK = {"step 1": -2 * HOUR, "save 4": -3 * HOUR, "step 6": -4 * HOUR, "save 8": -50 * HOUR}
EVERY = {f"{what} {step}": (-1) ** step * (step + 1) * HOUR for step in range(STEPS) for what in ("step", "save")}
BETWEEN_STEPS = ("training", "evaluating", "saving")
"""Phases of a run from its first step to its last."""
Moments = dict[str, float]


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> NodeClock:
    return NodeClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def forks(clock: NodeClock) -> Iterator[Callable[[], Forks]]:
    """What `runs.start` forks from looks at that clock."""
    made = Forks(*RUN, environment={**clock.environment, "OMP_NUM_THREADS": "1"})
    yield lambda: made
    made.close()


@pytest.fixture
def server(clock: NodeClock, tmp_path: Path) -> Iterator[Reporting]:
    clock.set(0)
    with reporting(tmp_path) as made:
        yield made


UNDISTURBED: list[tuple[bytes, Any]] = []


@pytest.fixture
def undisturbed(runs: Any, make_plan: Any) -> tuple[bytes, Any]:
    """Weights and curve of the run that nothing disturbs, once for all tests of a process."""
    if not UNDISTURBED:
        whole = make_plan("whole", **COMMON)
        runs.finish(whole)
        UNDISTURBED.append(end_of(runs, whole))
    return UNDISTURBED[0]


def end_of(runs: Any, plan: Any) -> tuple[bytes, Any]:
    return (Path(plan.output_path) / "adapter" / "adapter_model.safetensors").read_bytes(), runs.curve(plan)


def jumping(moments: Moments, stop: str = "") -> str:
    return f"from support.runs.jumping_clock import jump_at; jump_at({moments!r}, {stop!r})"


def log_of(plan: Any) -> str:
    return (Path(plan.work_path).parent / "log-0").read_text()


def jumps(plan: Any) -> list[str]:
    """The moments at which the clock has jumped, by the log."""
    return re.findall(f"^{JUMPED.format('(.+)')}$", log_of(plan), re.MULTILINE)


def stepped(plan: Any) -> float:
    """Seconds from the end of the first step to the end of the last, by the last process that trained."""
    ends = [float(at) for at in re.findall(f"^{STEPPED.format('(.+)')}$", log_of(plan), re.MULTILINE)]
    return ends[-1] - ends[0]


def negative(value: Any, path: str = "") -> list[str]:
    """Every number below 0."""
    if isinstance(value, dict):
        return [n for key, each in value.items() for n in negative(each, f"{path}.{key}")]
    if isinstance(value, list):
        return [n for i, each in enumerate(value) for n in negative(each, f"{path}[{i}]")]
    try:
        return [path] if float(value) < 0 else []
    except (TypeError, ValueError):
        return []


def timed_well(outcome: TerminationMessage, plan: Any, took: float, server: Reporting) -> None:
    """The times in the outcome and in every report are those of the run, not of its node's clock."""
    result: Any = outcome.result
    assert outcome.phases is not None
    assert negative(outcome.phases) == []
    assert sum(outcome.phases.values()) <= took
    # Each is rounded to tenths.
    assert sum(outcome.phases[name] for name in BETWEEN_STEPS) > stepped(plan) - 0.2
    assert float(result.tokens_per_second) > 1
    assert server.reports
    for report in server.reports:
        assert negative(report.to_json()) == []
        assert report.hone is not None
        assert sum(report.hone.phases.values()) <= took
        assert (report.trainer_status.estimated_remaining_seconds or 0) <= STEPS * took


@pytest.mark.faults("T12")
@pytest.mark.parametrize(
    ("moments", "ranks"),
    [
        (TO_AND_FRO, 1),
        pytest.param(BACK, 1, marks=pytest.mark.long),
        pytest.param(EVERY, 1, marks=pytest.mark.long),
        pytest.param(TO_AND_FRO, 2, marks=pytest.mark.long),
    ],
    ids=["to-and-fro", "back", "every", "two-ranks"],
)
def test_a_clock_that_jumps_changes_nothing(
    runs: Any, make_plan: Any, undisturbed: Any, server: Reporting, moments: Moments, ranks: int
) -> None:
    """The operator's clock does not jump. It gets the reports, except while the node's clock is days behind."""
    plan = make_plan("jumping", processesPerNode=ranks, **COMMON)
    since = time.monotonic()
    process = runs.start(plan, before=jumping(moments), **server.environment())
    outcome = runs.wait(plan, process)
    timed_well(outcome, plan, time.monotonic() - since, server)
    assert set(jumps(plan)) >= {moment for moment in moments if not moment.startswith("save")} | {"save 4", "save 8"}
    assert server.latest is not None
    lost = moments is BACK
    assert ("certificate is not trusted" in log_of(plan)) == lost
    # A fast run is over before its second report.
    assert server.latest.step <= 8 if lost else server.latest.step == STEPS
    if ranks == 1:
        assert end_of(runs, plan) == undisturbed
    else:
        alone = make_plan("two", processesPerNode=2, **COMMON)
        runs.wait(alone, runs.start(alone))
        assert end_of(runs, plan) == end_of(runs, alone)


@pytest.mark.faults("T12")
def test_a_run_goes_on_before_the_time_of_its_checkpoint(
    runs: Any, make_plan: Any, clock: NodeClock, undisturbed: Any, server: Reporting
) -> None:
    """SIGTERM while the clock is hours ahead; the next pod starts, and loads the checkpoint, a day before it."""
    plan, since = make_plan("stopped", **COMMON), time.monotonic()
    process = runs.start(plan, before=jumping({"step 2": 3 * HOUR, "save 7": 9 * HOUR}, stop="step 6"))
    assert runs.wait(plan, process, 75).failure.step == 7
    assert jumps(plan) == ["step 2", "save 7"]
    clock.set(-20 * HOUR)
    outcome = runs.wait(plan, runs.start(plan, before=jumping({"step 9": -HOUR}), **server.environment()))
    timed_well(outcome, plan, time.monotonic() - since, server)
    assert outcome.result.start_step == 7
    assert end_of(runs, plan) == undisturbed
    assert (server.latest.step if server.latest else 0) == STEPS


@pytest.mark.faults("T12")
@pytest.mark.long
def test_checkpoints_with_cadence_auto_do_not_follow_the_clock(runs: Any, make_plan: Any, clock: NodeClock) -> None:
    """The first after a tenth of the run. By the wall clock, ten minutes would be over in its second step."""
    clock.set(0)
    auto = {"checkpoints": {"cadence": "Auto", "keep": 99}, "training": {"maxSteps": 40}, "held_out": False}
    plan = make_plan("auto", **auto)
    moments = {"step 1": 5 * HOUR, "save 4": 50 * HOUR, "step 9": -HOUR, "step 20": 99 * HOUR}
    runs.wait(plan, runs.start(plan, before=jumping(moments)))
    assert set(jumps(plan)) == set(moments)
    assert RunCheckpoints(Path(plan.work_path) / "checkpoints", 99).steps() == [4, 40]
