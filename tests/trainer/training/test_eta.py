"""The time left, by the steps that an attempt has measured."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from hone_trainer.training.callbacks import Report

pytestmark = pytest.mark.trainer


def left_after(method: str, seconds: list[float], monkeypatch: pytest.MonkeyPatch, total: int = 10) -> list[int]:
    """What is reported after each step of these lengths, in an attempt that resumes from step 2."""
    now, notes = [0.0], list[int]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = SimpleNamespace(end_step=lambda: None)
    reporters: Any = SimpleNamespace(
        clock=clock, note=lambda **values: notes.append(values["eta_seconds"]), update=lambda **_: None
    )
    checkpoints = SimpleNamespace(size_bytes=lambda: 0)
    run: Any = SimpleNamespace(
        settings=SimpleNamespace(cpu=True),
        plan=SimpleNamespace(method=method),
        reporters=reporters,
        checkpoints=checkpoints,
    )
    report = Report(run)
    state: Any = SimpleNamespace(global_step=2, max_steps=total, num_input_tokens_seen=0, epoch=0.0)
    control: Any = SimpleNamespace(should_log=False)
    args: Any = None
    report.on_train_begin(args, state, control)
    for step in seconds:
        now[0] += step
        state.global_step += 1
        report.on_step_end(args, state, control)
    return notes


def test_the_first_step_does_not_count_once_another_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """It compiles kernels: here it takes ten times as long."""
    assert left_after("SFT", [20, 2, 2], monkeypatch) == [140, 12, 10]


def test_the_first_step_counts_where_some_steps_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch of samples serves two steps here, so a mean without the first would be of the short ones."""
    assert left_after("GRPO", [6, 2, 6, 2], monkeypatch) == [42, 24, 23, 16]
