"""Metrics that ask for a repetition of a Model's job: recorded whatever happens, met once, bounded like a request."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from retraining import DAY, HOUR, MINUTE, World

from hone_api.contract.status_json import RetrainReportJson
from hone_operator.progress.inbox import Inbox, answer
from hone_operator.times import format_time

pytestmark = pytest.mark.pure


def report(since: datetime, **fields: Any) -> RetrainReportJson:
    body: Any = {"metric": "WrongAnswers", "value": "0.12", "by": "monitoring/alertmanager"}
    out: RetrainReportJson = {**body, "since": format_time(since), **fields}
    return out


def test_a_metric_needs_one_new_row_and_is_met_once() -> None:
    world = World(rows={"atLeast": 100})
    world.rows(2, 1001, 1)
    world.tick()
    assert world.reason() == "WaitingForRows"
    world.reported = report(world.now + MINUTE, reason="12 % of answers are wrong")
    outcome = world.tick(DAY)
    events = {event.reason: event.message for event in outcome.events}
    since = f"since {world.reported['since']}: 12 % of answers are wrong"
    assert events["MetricReported"] == f"monitoring/alertmanager reported WrongAnswers 0.12, {since}"
    [job] = world.made()
    expected = "since 1 row changed; monitoring/alertmanager reported WrongAnswers 0.12."
    assert world.message() == f"FineTuneJob {job} trains, {expected}"
    status = world.model["status"]["retrain"]
    assert status["reported"] == world.reported, "who, what, its value and since when"
    assert "requestedAt" not in status, "it is met"
    assert answer(world.model, world.reported)[0] is False
    world.now += HOUR
    world.end(job, "Succeeded")
    world.rows(3, 1002, 1)
    outcome = world.tick(DAY)
    assert "MetricReported" not in [event.reason for event in outcome.events]
    assert world.reason() == "WaitingForRows", "the same alert, still firing, asks for nothing more"


@pytest.mark.parametrize(
    ("retrain", "reason"),
    [
        ({"minInterval": "7d"}, "WaitingForInterval"),
        ({"quietPeriod": "3d"}, "WaitingForQuiet"),
        ({"gpuHoursPerMonth": 0}, "BudgetUsedUp"),
        ({"suspend": True}, "Suspended"),
    ],
)
def test_a_metric_is_bounded_like_every_trigger(retrain: dict[str, Any], reason: str) -> None:
    world = World(**retrain)
    world.tick()
    world.rows(2, 1001, 1)
    world.tick()
    world.reported = report(world.now + MINUTE)
    world.tick(DAY)
    assert (world.reason(), world.made()) == (reason, [])
    assert world.model["status"]["retrain"]["requestedAt"] == world.reported["since"]
    is_requested, message = answer(world.model, world.reported)
    assert is_requested
    assert message == f"{reason}: {world.message()}"


def test_a_metric_on_unchanged_rows_waits_for_new_ones() -> None:
    world = World()
    world.reported = report(world.now + MINUTE)
    world.tick(DAY)
    assert world.reason() == "Trained"
    assert "waits for new rows; monitoring/alertmanager reported WrongAnswers 0.12." in world.message()
    world.reported = None
    world.rows(2, 1001, 1)
    world.tick()
    world.tick(HOUR)
    assert len(world.made()) == 1


def test_a_metric_is_recorded_also_where_no_job_can_be_repeated() -> None:
    world = World(fineTuneJob="gone")
    world.jobs.clear()
    world.reported = report(world.now)
    world.tick()
    assert world.reason() == "FineTuneJobNotFound"
    assert world.model["status"]["retrain"]["reported"] == world.reported
    assert world.tick().status is None, "recorded once"


def test_an_older_metric_does_not_replace_a_newer_one() -> None:
    world = World()
    newer = world.reported = report(world.now + HOUR)
    world.tick(DAY)
    world.reported = report(world.now - 3 * DAY, metric="Other")
    world.tick()
    assert world.model["status"]["retrain"]["reported"] == newer


def test_the_request_by_annotation_and_the_metric_are_one() -> None:
    world = World()
    world.tick()
    world.model["metadata"]["annotations"] = {"hone.dev/retrain-requested-at": format_time(world.now + 2 * HOUR)}
    world.reported = report(world.now + HOUR)
    world.rows(2, 1001, 1)
    world.tick(3 * HOUR)
    assert world.model["status"]["retrain"]["requestedAt"] == world.reported["since"]
    world.tick(DAY)
    assert len(world.made()) == 1
    assert "requestedAt" not in world.model["status"]["retrain"]


def test_the_inbox_has_the_newest_report_while_its_sender_waits() -> None:
    world, inbox = World(), Inbox()
    older, newer = report(world.now), report(world.now + HOUR)
    with inbox.waiting("m", newer):
        with inbox.waiting("m", older):
            assert inbox.of(world.model) is newer
        assert inbox.of(world.model) is newer
    assert inbox.of(world.model) is None
