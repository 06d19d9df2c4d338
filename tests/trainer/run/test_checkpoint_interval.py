"""Checkpoints whose interval follows from what they and the steps take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hone_trainer.training import checkpoint_interval, settings


@pytest.mark.trainer
def test_a_run_saves_when_the_measured_interval_is_over(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first checkpoint after a tenth of the run; then as the measured interval says, here 3 steps."""
    measured: list[tuple[float, float, int | None]] = []

    def interval(save: float, step: float, failures: int | None) -> int:
        measured.append((save, step, failures))
        return 3

    monkeypatch.setattr(settings, "checkpoint_interval", interval)
    auto = {"cadence": "Auto", "keep": 10}
    plan = make_plan(checkpoints=auto, failureInterval=7200, held_out=False, training={"maxSteps": 12})
    saved: list[int] = []
    noted = checkpoint_interval.CheckpointInterval.saved

    def note(self: checkpoint_interval.CheckpointInterval, step: int) -> None:
        saved.append(step)
        noted(self, step)

    monkeypatch.setattr(checkpoint_interval.CheckpointInterval, "saved", note)
    runs.finish(plan)
    assert saved == [2, 5, 8, 11, 12]
    assert all(save > 0 and step > 0 and failures == 7200 for save, step, failures in measured)


@pytest.mark.torch
@pytest.mark.pure
def test_a_resumed_run_counts_from_its_checkpoint() -> None:
    run: Any = SimpleNamespace(settings=SimpleNamespace(checkpoint_every=20))
    schedule = checkpoint_interval.CheckpointInterval(run)
    schedule.begin(110)
    assert [step for step in (111, 129, 130) if schedule.is_due(step)] == [130]


@pytest.mark.torch
@pytest.mark.pure
def test_slow_steps_are_saved_after_ten_minutes_until_a_checkpoint_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of two minutes: 20 of them would take longer than many a spot node lives."""
    now = 0.0
    monkeypatch.setattr(checkpoint_interval.time, "monotonic", lambda: now)
    run: Any = SimpleNamespace(
        settings=SimpleNamespace(checkpoint_every=20),
        save_seconds=30.0,
        plan=SimpleNamespace(failure_interval=7200),
        reporters=SimpleNamespace(log=lambda _: None),
    )
    schedule = checkpoint_interval.CheckpointInterval(run)
    schedule.begin(0)
    due = []
    for step in range(1, 20):
        schedule.begin_step()
        now += 120.0
        if schedule.is_due(step):
            due.append(step)
            schedule.saved(step)
    assert due == [5, 10, 15], "then 11 minutes, by Young and Daly"
