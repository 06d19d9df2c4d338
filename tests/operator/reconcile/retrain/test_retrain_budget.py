"""GPU hours of a job, as the budget of a Model counts them: what its attempts held, not the time in a queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hone_operator.reconcile.retrain.retrain_budget import gpu_seconds
from hone_operator.times import format_time

pytestmark = pytest.mark.pure
START = datetime(2026, 1, 10, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def attempt(start: datetime, end: datetime | None, outcome: str = "Failed", **fields: Any) -> dict[str, Any]:
    """A record; `phases` has seconds."""
    record = {"number": 1, "jobName": "run-1", "startTime": format_time(start), "outcome": outcome, **fields}
    return record if end is None else {**record, "endTime": format_time(end)}


def hours(now: datetime, *attempts: dict[str, Any], **status: Any) -> float:
    """GPU hours of a job on two nodes with four GPUs each."""
    status = {"startTime": format_time(START), "attempts": list(attempts), **status}
    job = {"spec": {"resources": {"nodes": 2, "gpusPerNode": 4}}, "status": status}
    return gpu_seconds(job, now) / 3600


def test_the_time_in_the_queue_is_not_counted() -> None:
    end = START + 5 * DAY + 2 * HOUR
    first = attempt(START, START + HOUR, phases={"scheduled": 0, "loading": 600, "training": 3000})
    queued = {"queued": 5 * 86400, "scheduled": 0, "training": 3600}
    second = attempt(START + HOUR, end, "Succeeded", phases=queued)
    assert hours(end, first, second, completionTime=format_time(end)) == 16


def test_an_attempt_that_waits_holds_nothing() -> None:
    now = START + 5 * DAY
    assert hours(now, attempt(START, None, "Running")) == 0, "in a queue"
    assert hours(now, attempt(START, None, "Running", phases={"queued": 60})) == 0, "for a node"
    held = attempt(START, None, "Running", phases={"queued": 4 * 86400, "scheduled": 23 * 3600})
    assert hours(now, held) == 8, "for its image"
    assert hours(now) == 0, "for its rows"


def test_the_nodes_of_an_elastic_attempt_are_counted() -> None:
    phases = {"scheduled": 0, "training": 3600}
    assert hours(START + HOUR, attempt(START, START + HOUR, phases=phases, nodes=1)) == 4


@pytest.mark.parametrize("outcome", ["Suspended", "Requeued"])
def test_a_suspension_within_an_attempt_holds_nothing(outcome: str) -> None:
    phases = {"scheduled": 0, "training": 3600, "other": 4 * 86400}
    end = START + 4 * DAY + HOUR
    assert hours(end, attempt(START, end, outcome, phases=phases)) == 8
    assert hours(end, attempt(START, None, outcome, phases={"scheduled": 0, "training": 3600})) == 8
    assert hours(end, attempt(START, end, outcome, phases={"queued": 3600, "other": 4 * 86400})) == 0


def test_an_attempt_that_goes_on_after_a_suspension_held_nothing_during_it() -> None:
    phases = {"queued": 86400, "scheduled": 0, "training": 3600, "suspended": 86400}
    end = START + 2 * DAY + HOUR
    assert hours(end, attempt(START, end, "Succeeded", phases=phases)) == 8


def test_an_attempt_whose_pods_waited_for_each_other_holds_nothing() -> None:
    end = START + HOUR
    assert hours(end, attempt(START, end, "Resized", phases={"queued": 60, "scheduled": 3540})) == 0


def test_only_the_present_month_is_counted() -> None:
    start, end = datetime(2026, 1, 31, 12, tzinfo=UTC), datetime(2026, 2, 1, 6, tzinfo=UTC)
    record = attempt(start, end, phases={"queued": 3600, "scheduled": 0, "training": 17 * 3600})
    assert hours(end, record) == 6 * 8
    assert hours(datetime(2026, 3, 1, tzinfo=UTC), record) == 0


def test_attempts_that_the_status_has_no_room_for_count_by_their_time() -> None:
    record = attempt(START + DAY, START + DAY + HOUR, phases={"scheduled": 0, "training": 3600})
    assert hours(START + 2 * DAY, record, earlierAttempts={"number": 3, "failed": 3, "preempted": 0}) == 25 * 8


def test_what_cannot_be_read_holds_nothing() -> None:
    ended = attempt(START, None, "Running", phases={"scheduled": 0})
    assert hours(START + DAY, ended, completionTime=format_time(START + HOUR)) == 8, "a record that nobody closed"
    broken = {"number": 1, "jobName": "run-1", "startTime": "yesterday", "outcome": "Failed"}
    assert hours(START + DAY, broken) == 0
    assert gpu_seconds({"spec": {}}, START) == 0
