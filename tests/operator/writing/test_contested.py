"""A status that another writer changes back each time is written less and less often, and all others at once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hone_operator.writing.contested import CALM, FREE, LONGEST_PAUSE, Contested

OURS, OTHERS = {"phase": "Pending"}, {"phase": "Failed"}
HOUR = 3600.0


def body(status: dict[str, Any], uid: str = "u") -> dict[str, Any]:
    return {"metadata": {"uid": uid}, "status": status}


def fight(contested: Contested, seconds: float, answers_after: float = 0.1) -> list[float]:
    """Times at which we write while another writer changes the status back after a moment."""
    now, written = 0.0, []
    while now < seconds:
        pause = contested.pause(body(OTHERS), OURS, now)
        if not pause:
            written.append(now)
        now += pause or answers_after
    return written


@pytest.mark.pure
def test_two_writers_come_to_rest() -> None:
    written = fight(Contested(), HOUR)
    assert len(written) < 25, "an hour of two versions at once wrote 19,000 times"
    assert written[FREE] < 1, "a few are set right at once"
    assert written[-1] - written[-2] >= LONGEST_PAUSE


@pytest.mark.pure
def test_what_nobody_changes_back_is_written_at_once() -> None:
    contested, status = Contested(), dict[str, Any]()
    for number in range(1000):  # numbers of progress, and transitions of our own
        new = {"phase": ("Pending", "Running")[number // 10 % 2], "progress": {"step": number}}
        assert contested.pause(body(status), new, number / 10) == 0
        status = new


@pytest.mark.pure
def test_a_status_that_is_removed_now_and_then_is_written_at_once() -> None:
    """As a restore does."""
    contested = Contested()
    assert [contested.pause(body({}), OURS, number * (CALM + 1)) for number in range(20)] == [0.0] * 20
    assert [contested.pause(body(OTHERS, f"u{n}"), OURS, 1.0) for n in range(5000)] == [0.0] * 5000


@pytest.mark.apiserver
def test_an_operator_gives_way_to_a_writer_that_never_rests(namespace: Any, operator: Any) -> None:
    namespace.create("Dataset", "rows", {"source": {"uri": "configmap://nothing/rows.jsonl"}})

    def phase() -> Any:
        return (namespace.get("Dataset", "rows").get("status") or {}).get("phase")

    namespace.until(lambda: phase() is not None, "a status")
    ours, rounds = phase(), 0
    while rounds < 20:
        namespace.patch("Dataset", "rows", {"status": {"phase": "Failed"}}, "status")
        rounds += 1
        end = time.monotonic() + 20
        while phase() != ours and time.monotonic() < end:
            time.sleep(0.05)
        if phase() != ours:
            break
    assert FREE < rounds < 12
    assert "another writer keeps changing its status back" in operator.log()
    namespace.until(lambda: phase() == ours, "it is written later")
