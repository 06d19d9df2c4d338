"""A rank that computes more slowly than the others is named, though all end a step together."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone_trainer.training.timing.stragglers import IN_A_ROW, Slowest, Stragglers, slowest

pytestmark = pytest.mark.trainer
"""The module imports transformers."""


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1.0, 2.0], Slowest(1, 2.0)),
        ([1.0, 1.0, 1.5, 1.0], Slowest(2, 1.5)),
        ([3.0, 1.0, 1.0], Slowest(0, 3.0)),
        ([0.0, 0.0], None),
        ([0.0, 1.0], None),
    ],
)
def test_the_slowest_is_compared_with_the_others(seconds: list[float], expected: Slowest | None) -> None:
    assert slowest(seconds) == expected


@pytest.mark.parametrize(
    ("windows", "named"),
    [
        ([(1, 1.5)] * IN_A_ROW, 1),
        ([(1, 1.5)] * (IN_A_ROW + 4), 1),
        ([(1, 1.5)] * (IN_A_ROW - 1), 0),
        ([(1, 1.5), (0, 1.5)] * IN_A_ROW, 0),
        ([(1, 1.5), (1, 1.2), (1, 1.5), (1, 1.5)], 0),
        ([(0, 1.9), *[(1, 1.5)] * IN_A_ROW], 1),
    ],
)
def test_a_straggler_is_named_once_it_was_slow_several_times(windows: list[tuple[int, float]], named: int) -> None:
    said: list[str] = []
    reporters = SimpleNamespace(note=lambda **_: None, log=said.append)
    run: Any = SimpleNamespace(reporters=reporters, advice=[], plan=SimpleNamespace(processes_per_node=1))
    guard = Stragglers(run)
    for rank, ratio in windows:
        guard.compared(Slowest(rank, ratio))
    assert len(said) == named
    assert run.advice == said


def test_a_slow_rank_of_two_is_named_while_it_trains(runs: Any, make_plan: Any) -> None:
    """One rank is stopped for three quarters of the time, as by a neighbour on its node."""
    long = {"training": {"maxSteps": 100_000}, "evaluation": {"samples": 0, "everySteps": 100_000}}
    plan = runs.encoded(make_plan(processesPerNode=2, **long))
    process = runs.start(plan)
    log = Path(plan.work_path).parent / "log-0"
    runs.wait_for(Path(plan.work_path) / "checkpoints", process)
    slow = runs.pid_of_rank(process, 1)
    try:
        while "rank 1 (node 0, process 1) takes" not in log.read_text():
            assert process.poll() is None, log.read_text()[-4000:]
            os.kill(slow, signal.SIGSTOP)
            time.sleep(0.03)
            os.kill(slow, signal.SIGCONT)
            time.sleep(0.01)
    finally:
        process.terminate()
    assert runs.wait(plan, process, 75).failure.code == "Interrupted"
