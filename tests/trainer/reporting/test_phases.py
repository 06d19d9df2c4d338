"""The clock of a run: each second counts to one phase."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hone_trainer.reporting import phases
from hone_trainer.reporting.phases import Clock

pytestmark = pytest.mark.pure


@pytest.fixture
def pass_seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass."""
    now = [100.0]

    def advance(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(phases.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(phases, "_clock", None)
    monkeypatch.setattr(phases, "_is_run", False)
    return advance


def run(clock: Clock, pass_seconds: Callable[[float], None]) -> None:
    """Load 3 s, evaluate the base 5 s, wait 1 s for a batch, first step 2 s, another 4 s, save 7 s, export 6 s."""
    pass_seconds(3)
    clock.enter_stage("EvaluatingBase")
    pass_seconds(5)
    clock.enter_stage("Training")
    pass_seconds(1)
    for seconds in (2, 4):
        clock.begin_step()
        pass_seconds(seconds)
        clock.end_step()
    with clock.within("saving"):
        pass_seconds(7)
    clock.enter_stage("Exporting")
    pass_seconds(6)


RUN = {"loading": 4, "evaluatingBase": 5, "firstStep": 2, "training": 4, "saving": 7, "exporting": 6}


def test_each_second_counts_once(pass_seconds: Callable[[float], None]) -> None:
    clock = Clock()
    run(clock, pass_seconds)
    assert clock.seconds() == RUN


def test_a_child_process_goes_on_with_the_clock(pass_seconds: Callable[[float], None]) -> None:
    parent = Clock()
    pass_seconds(2)
    child = Clock.from_json(parent.to_json())
    run(child, pass_seconds)
    parent.take_over(child.seconds())
    assert parent.outcome() == {**RUN, "loading": 6}


def test_a_command_that_is_not_a_run_reports_nothing(pass_seconds: Callable[[float], None]) -> None:
    pass_seconds(1)
    assert phases.of_process().seconds() == {"loading": 0}
    assert phases.outcome() is None


def test_a_rank_that_was_killed_leaves_no_claim(pass_seconds: Callable[[float], None]) -> None:
    clock = Clock()
    pass_seconds(9)
    clock.take_over(None)
    assert clock.outcome() is None


def test_later_pods_of_an_attempt_add_to_what_was_measured(
    tmp_path: Path, pass_seconds: Callable[[float], None]
) -> None:
    clock = phases.begin(tmp_path, 1)
    run(clock, pass_seconds)
    clock.keep(tmp_path, 1)
    pass_seconds(1000)
    resumed = phases.begin(tmp_path, 1)
    pass_seconds(2)
    assert phases.outcome() == resumed.seconds() == {**RUN, "loading": 6}
    phases.begin(tmp_path, 2)
    assert phases.outcome() == {"loading": 0}


@pytest.mark.parametrize("content", ["", "[]", '{"attempt": 1, "seconds": {"loading": -1}}', '{"attempt": 1}'])
def test_a_damaged_file_ends_no_run(tmp_path: Path, pass_seconds: Callable[[float], None], content: str) -> None:
    (tmp_path / phases.FILE).write_text(content)
    assert phases.begin(tmp_path, 1).seconds() == {"loading": 0}
