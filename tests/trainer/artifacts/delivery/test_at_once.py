"""Files that are sent at the same time: their order, and their end when one of them fails."""

from __future__ import annotations

import threading

import pytest

from hone_trainer.artifacts.delivery import at_once

pytestmark = pytest.mark.trainer


def test_results_have_the_order_of_the_files_which_run_at_the_same_time() -> None:
    together = threading.Barrier(at_once.AT_ONCE, timeout=60)

    def work(number: int, check: at_once.Check) -> int:
        together.wait()
        check()
        return number

    assert at_once.each(work, range(2 * at_once.AT_ONCE)) == [*range(2 * at_once.AT_ONCE)]


def test_a_call_that_waits_for_a_silent_server_does_not_hold_up_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "_PATIENCE_SECONDS", 0.1)
    silent, seen = threading.Event(), []

    def work(number: int, check: at_once.Check) -> None:
        if number == 0:
            silent.wait(60)
            seen.append("ended")
        raise OSError("the registry does not answer")

    with pytest.raises(OSError, match="the registry does not answer"):
        at_once.each(work, range(2))
    assert not seen
    silent.set()


def test_the_first_error_ends_the_others_between_two_of_their_pieces() -> None:
    begun, started = [], threading.Barrier(at_once.AT_ONCE, timeout=60)

    def work(number: int, check: at_once.Check) -> None:
        begun.append(number)
        started.wait()
        if number == 1:
            raise OSError("the registry does not answer")
        while True:
            check()

    with pytest.raises(OSError, match="the registry does not answer"):
        at_once.each(work, range(100))
    assert sorted(begun) == [*range(at_once.AT_ONCE)]
