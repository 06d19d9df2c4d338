"""When a job of a Model is repeated on new rows, and what it waits for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.lives.retraining import DAY, HOUR, MINUTE, World, digest

from hone_operator.desired.model import retrain as desired
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.times import format_time

pytestmark = pytest.mark.pure


def test_enough_new_rows_that_stay_are_trained_on_once() -> None:
    world = World()
    world.tick()
    assert world.reason() == "Trained"
    world.rows(2, 1060, 60)
    world.tick(DAY)
    assert (world.reason(), world.made()) == ("WaitingForRows", [])
    world.rows(3, 1120, 60)
    outcome = world.tick(DAY)
    assert (world.reason(), outcome.check_again_in) == ("WaitingForQuiet", 600)
    world.tick(10 * MINUTE)
    [name] = world.made()
    child = world.jobs[name]
    assert child["metadata"]["ownerReferences"][0]["kind"] == "Model"
    assert child["spec"] == {k: v for k, v in world.jobs["first"]["spec"].items() if k != "suspend"}
    assert "120 rows changed" in world.message()
    world.tick(MINUTE)
    assert world.reason() == "Retraining"
    world.end(name, "Succeeded")
    world.tick(DAY)
    assert (world.reason(), world.made()) == ("Trained", [name])
    assert world.model["status"]["retrain"]["lastJob"] == name


def test_an_operator_that_forgot_its_status_creates_nothing_twice() -> None:
    world = World()
    world.rows(2, 1200, 200)
    world.tick(DAY)
    world.tick(HOUR)
    [name] = world.made()
    world.end(name, "Succeeded")
    del world.model["status"]
    world.tick(DAY)
    assert (world.reason(), world.made()) == ("Trained", [name])


def test_a_name_follows_from_template_and_content() -> None:
    template = World().jobs["first"]
    name = desired.name("tutor", template, {"faq": digest(1)})
    assert desired.name("tutor", {**template, "status": {}}, {"faq": digest(1)}) == name
    assert desired.name("tutor", template, {"faq": digest(2)}) != name
    other = {**template, "spec": {**template["spec"], "method": "DPO"}}
    assert desired.name("tutor", other, {"faq": digest(1)}) != name
    longest = desired.name("1" + "x" * 49, template, {"faq": digest(1)})
    assert len(longest) <= 52
    assert longest[0].isalpha()


@pytest.mark.parametrize(
    ("retrain", "wait", "created"),
    [
        ({"rows": {"share": "10%"}}, timedelta(0), True),
        ({"rows": {"share": "20%"}}, timedelta(0), False),
        ({"rows": {"atLeast": 151}}, timedelta(0), False),
        ({"rows": {"atLeast": 151}, "times": {"every": "30d"}}, 20 * DAY, False),
        ({"rows": {"atLeast": 151}, "times": {"every": "30d"}}, 30 * DAY, True),
        ({"rows": None, "times": {"schedule": "0 3 1 * *"}}, 20 * DAY, False),
        ({"rows": None, "times": {"schedule": "0 3 1 * *"}}, 22 * DAY, True),
        ({"suspend": True}, timedelta(0), False),
        ({"minInterval": "3d"}, timedelta(0), False),
        ({"minInterval": "3d"}, 3 * DAY, True),
    ],
)
def test_triggers(retrain: dict[str, Any], wait: timedelta, created: bool) -> None:
    world = World(**{"minInterval": "1h", **retrain})
    world.tick()
    world.rows(2, 1150, 150)
    world.tick(HOUR)
    world.tick(HOUR + wait)
    assert bool(world.made()) is created, world.message()


@pytest.mark.parametrize(
    ("every", "retrain", "longest"),
    [
        (5, {"rows": {"atLeast": 10}}, timedelta(minutes=100)),
        (5, {"rows": {"atLeast": 10}, "maxWait": "30m"}, 30 * MINUTE),
        (5, {"rows": None, "times": {"schedule": "0 3 * * *"}}, timedelta(minutes=100)),
        (9, {"rows": {"atLeast": 400}, "quietPeriod": "1h"}, 10 * HOUR),
    ],
)
def test_rows_that_never_rest_are_trained_on_all_the_same(
    every: int, retrain: dict[str, Any], longest: timedelta
) -> None:
    """A week of a feedback loop: three rows every few minutes."""
    world = World(minInterval="12h", **retrain)
    waits: list[timedelta] = []
    due = None
    for minute in range(0, 7 * 24 * 60, every):
        world.rows(2 + minute, 1000 + minute, 3)
        world.tick(every * MINUTE)
        if world.reason() == "WaitingForQuiet":
            due = due or world.now
        elif due:
            waits.append(world.now - due)
            due = None
        for name in world.made():
            world.end(name, "Succeeded")
    assert len(world.made()) >= 5
    assert max(waits, default=timedelta(0)) <= longest + every * MINUTE


def test_rows_that_come_in_bursts_are_not_trained_on_in_the_middle_of_one() -> None:
    """Also if the first of them came long before they were enough."""
    world = World(minInterval="1h")
    world.rows(2, 1001, 1)
    world.tick()
    world.tick(5 * DAY)
    for content in range(3, 8):
        world.rows(content, 1001 + 60 * content, 60)
        world.tick(5 * MINUTE)
        assert world.made() == []
    world.tick(10 * MINUTE)
    assert len(world.made()) == 1


def asked(world: World, at: str) -> None:
    world.model["metadata"]["annotations"] = {"hone.dev/retrain-requested-at": at}


def test_a_request_needs_one_new_row_and_is_met_once() -> None:
    world = World(minInterval="1h")
    world.rows(2, 1001, 1)
    world.tick()
    world.tick(DAY)
    assert world.reason() == "WaitingForRows"
    assert "hone retrain tutor" in world.message()
    asked(world, format_time(world.now))
    world.tick()
    [name] = world.made()
    assert "requestedAt" not in world.model["status"]["retrain"], "it is met"
    world.now += HOUR
    world.end(name, "Succeeded")
    world.rows(3, 1002, 1)
    world.tick(DAY)
    assert (world.reason(), world.made()) == ("WaitingForRows", [name])


@pytest.mark.parametrize("limit", [{"minInterval": "3d"}, {"quietPeriod": "3d"}, {"suspend": True}])
def test_a_request_is_bounded_like_every_trigger(limit: dict[str, Any]) -> None:
    world = World(**limit)
    world.rows(2, 1001, 1)
    asked(world, format_time(world.now + MINUTE))
    world.tick()
    world.tick(DAY)
    assert world.made() == []
    assert world.model["status"]["retrain"]["requestedAt"] == format_time(world.now - DAY + MINUTE)


def test_a_request_on_unchanged_rows_waits_for_new_ones() -> None:
    world = World(rows=None)
    asked(world, format_time(world.now + MINUTE))
    world.tick(DAY)
    assert (world.reason(), world.made()) == ("Trained", [])
    assert "waits for new rows" in world.message()
    world.rows(2, 1001, 1)
    world.tick()
    world.tick(HOUR)
    assert len(world.made()) == 1


def test_a_request_for_later_waits_until_then() -> None:
    world = World(rows=None, minInterval="1h")
    world.rows(2, 1001, 1)
    asked(world, format_time(world.now + 2 * DAY))
    world.tick()
    outcome = world.tick(DAY)
    assert (world.made(), outcome.check_again_in) == ([], DAY.total_seconds())
    world.tick(DAY)
    assert len(world.made()) == 1


def test_a_request_that_is_not_a_time_is_named() -> None:
    world = World()
    asked(world, "now")
    world.tick()
    assert world.reason() == "InvalidValue"
    assert "metadata.annotations[hone.dev/retrain-requested-at] 'now' is not a time" in world.message()


def test_one_job_at_a_time() -> None:
    world = World()
    world.add("by-hand")
    world.rows(2, 1200, 200)
    world.tick(DAY)
    world.tick(2 * DAY)
    assert (world.reason(), world.made()) == ("Retraining", ["by-hand"])
    world.jobs["by-hand"]["status"]["resolved"] = {"datasetDigests": {"faq": digest(2)}}
    world.end("by-hand", "Succeeded")
    world.tick(DAY)
    assert (world.reason(), world.made()) == ("Trained", ["by-hand"]), "it trained on the present rows"


def test_content_that_comes_back_is_not_trained_on_again() -> None:
    world = World()
    world.tick()
    world.rows(2, 1200, 200)
    world.tick(MINUTE)
    world.rows(1, 1000, 200)
    world.tick(2 * DAY)
    assert (world.reason(), world.made()) == ("Trained", [])


def test_content_of_a_version_is_not_trained_on_again_though_its_job_is_gone() -> None:
    world = World(minInterval="1m")
    name = world.repeat(2)
    world.repeat(3)
    del world.jobs[name]
    lineage = {"datasets": [{"name": "faq", "split": "train", "digest": digest(2)}]}
    world.versions = [{"metadata": {"name": "tutor-v2"}, "spec": {"modelName": "tutor", "lineage": lineage}}]
    world.rows(2, 1000, 200)
    world.tick()
    world.tick(DAY)
    assert (world.reason(), name in world.made()) == ("Trained", False)


def test_a_failed_job_waits_for_new_rows() -> None:
    world = World(minInterval="1m")
    world.rows(2, 1200, 200)
    world.tick()
    world.tick(HOUR)
    [name] = world.made()
    world.end(name, "Failed")
    outcome = world.tick(DAY)
    assert (world.reason(), world.made()) == ("RetrainFailed", [name])
    assert [event.type for event in outcome.events] == ["Warning"]
    world.rows(3, 1300, 100)
    world.tick(DAY)
    world.tick(HOUR)
    assert len(world.made()) == 2


def test_the_budget_of_a_month() -> None:
    world = World(gpuHoursPerMonth=16, minInterval="1m", quietPeriod="1m")
    for content in (2, 3):
        world.rows(content, 1000 + content, 200)
        world.tick(MINUTE)
        world.tick(MINUTE)
        if content == 2:
            [name] = world.made()
            world.now += 2 * HOUR  # on 8 GPUs
            world.end(name, "Succeeded")
            world.tick()
    assert (world.reason(), world.made()) == ("BudgetUsedUp", [name])
    assert "2026-02-01T00:00:00Z" in world.message()
    assert world.model["status"]["retrain"]["gpuSeconds"] == 16 * 3600
    world.tick(datetime(2026, 2, 1, tzinfo=UTC) - world.now)
    assert len(world.made()) == 2


def test_repeated_jobs_share_the_budget_of_the_job_that_they_repeat() -> None:
    world = World(minInterval="1m", quietPeriod="1m", successfulJobsHistoryLimit=0)
    world.jobs["first"]["spec"]["budget"] = {"gpuHours": 40, "money": 1000, "gpuHourPrice": 1}
    world.jobs["first"]["status"]["attempts"] = []
    budgets: dict[str, Any] = {}
    for content in (2, 3, 4, 5):
        world.rows(content, 1000 + 200 * content, 200)
        world.tick(MINUTE)
        world.tick(MINUTE)
        for name in set(world.made()) - set(budgets):
            budgets[name] = world.jobs[name]["spec"]["budget"]["gpuHours"]
            world.now += 2 * HOUR  # on 8 GPUs
            world.end(name, "Succeeded")
            world.tick()
    assert list(budgets.values()) == ["40.0000", "24.0000", "8.0000"]
    assert world.reason() == "BudgetUsedUp"
    assert "spec.budget of FineTuneJob first" in world.message()
    assert len(world.made()) == 3, "a job that was deleted would give its hours back"


def test_a_job_that_the_api_server_refuses_is_not_counted_as_made() -> None:
    world = World(minInterval="1m")
    world.rows(2, 1200, 200)
    world.tick()
    world.refusals = [Refusal("FineTuneJob", "tutor-r1", "QuotaExceeded", "exceeded quota")]
    outcome = world.tick(HOUR)
    assert (world.reason(), outcome.create) == ("QuotaExceeded", ())
    world.refusals = []
    world.tick(HOUR)
    assert len(world.made()) == 1


@pytest.mark.parametrize(
    ("change", "reason", "told"),
    [
        (lambda w: w.jobs.clear(), "FineTuneJobNotFound", "there is no FineTuneJob first"),
        (lambda w: w.jobs["first"]["spec"]["output"].update(modelName="x"), "NotRepeatable", "makes the model x"),
        (lambda w: w.jobs["first"]["spec"]["output"].update(version=1), "NotRepeatable", "asks for version 1"),
        (lambda w: w.rows(2, 10, ready="False"), "DatasetNotReady", "Dataset faq"),
        (
            lambda w: w.model["spec"]["retrain"].update(times={"schedule": "0 0 31 2 *"}),
            "InvalidValue",
            "spec.retrain.times.schedule '0 0 31 2 *'",
        ),
    ],
)
def test_what_cannot_be_repeated_says_why(change: Any, reason: str, told: str) -> None:
    world = World()
    change(world)
    world.tick()
    assert (world.reason(), world.made()) == (reason, [])
    assert told in world.message()


def test_a_model_without_retrain_has_no_such_condition() -> None:
    world = World()
    world.tick()
    del world.model["spec"]["retrain"]
    world.tick()
    assert "retrain" not in world.model["status"]
    assert "UpToDate" not in [c["type"] for c in world.model["status"]["conditions"]]


def failed(world: World) -> str:
    """A job on new rows that failed."""
    world.rows(2, 1200, 200)
    world.tick()
    world.tick(HOUR)
    [name] = world.made()
    world.end(name, "Failed")
    world.tick(HOUR)
    return name


def test_a_failed_job_that_is_deleted_does_not_read_as_trained() -> None:
    world = World(minInterval="1m")
    name = failed(world)
    assert "delete it, then run: hone retrain tutor" in world.message()
    del world.jobs[name]
    for _ in range(3):
        world.tick(DAY)
        assert (world.reason(), world.made()) == ("RetrainFailed", []), world.message()
    assert f"FineTuneJob {name} on the present rows was deleted before it succeeded." in world.message()
    assert "hone retrain tutor" in world.message()


@pytest.mark.parametrize("first", ["request", "deletion"])
def test_a_request_starts_a_failed_job_again_once_it_is_deleted(first: str) -> None:
    world = World(minInterval="1m")
    name = failed(world)
    if first == "request":
        asked(world, format_time(world.now))
        world.tick(MINUTE)
        assert (world.reason(), world.made()) == ("RetrainFailed", [name])
        del world.jobs[name]
    else:
        del world.jobs[name]
        world.tick(MINUTE)
        asked(world, format_time(world.now))
    outcome = world.tick(MINUTE)
    assert (world.reason(), world.made()) == ("Retraining", [name])
    assert "0 rows" not in world.message()
    assert "asked for it again" in world.message()
    assert not [event for event in outcome.events if event.type == "Warning"]
    world.end(name, "Failed")
    world.tick(HOUR)
    del world.jobs[name]
    world.tick(DAY)
    assert (world.reason(), world.made()) == ("RetrainFailed", []), "a request is met once"


def test_a_request_for_later_repeats_a_deleted_job_then() -> None:
    world = World(minInterval="1m")
    name = failed(world)
    del world.jobs[name]
    asked(world, format_time(world.now + DAY))
    outcome = world.tick()
    assert (world.reason(), outcome.check_again_in) == ("RetrainFailed", DAY.total_seconds())
    world.tick(DAY)
    assert world.made() == [name]


@pytest.mark.parametrize("limit", [{"minInterval": "3d"}, {"suspend": True}, {"gpuHoursPerMonth": 0}])
def test_a_repetition_of_a_deleted_job_is_bounded(limit: dict[str, Any]) -> None:
    world = World(minInterval="1m")
    name = failed(world)
    del world.jobs[name]
    world.model["spec"]["retrain"] |= limit
    asked(world, format_time(world.now))
    world.tick(HOUR)
    assert (world.reason() in ("WaitingForInterval", "Suspended", "BudgetUsedUp"), world.made()) == (True, [])


def test_a_running_job_that_is_deleted_does_not_read_as_trained() -> None:
    world = World(minInterval="1m")
    world.rows(2, 1200, 200)
    world.tick()
    world.tick(HOUR)
    [name] = world.made()
    world.tick(MINUTE)
    del world.jobs[name]
    world.tick(DAY)
    assert (world.reason(), world.made()) == ("RetrainFailed", [])


@pytest.mark.parametrize("version", [True, False])
def test_a_job_that_succeeded_still_counts_when_it_is_deleted(version: bool) -> None:
    world = World(minInterval="1m")
    name = world.repeat(2)
    del world.jobs[name]
    if version:
        lineage = {"datasets": [{"name": "faq", "split": "train", "digest": digest(2)}]}
        world.versions = [{"metadata": {"name": "tutor-v2"}, "spec": {"modelName": "tutor", "lineage": lineage}}]
        del world.model["status"]
    asked(world, format_time(world.now))
    world.tick(DAY)
    assert (world.reason(), world.made()) == ("Trained", [])


def test_a_failed_job_of_a_person_is_repeated_only_on_request() -> None:
    """It has another name than a repetition, so nothing needs to be deleted."""
    world = World(minInterval="1m")
    world.jobs["first"]["status"]["conditions"] = []
    world.end("first", "Failed")
    world.tick(DAY)
    assert (world.reason(), world.made()) == ("RetrainFailed", [])
    assert "FineTuneJob first on the present rows failed" in world.message()
    asked(world, format_time(world.now))
    world.tick(MINUTE)
    [name] = world.made()
    world.end(name, "Succeeded")
    world.tick(MINUTE)
    assert world.reason() == "Trained"


def test_a_status_of_an_earlier_operator_knows_no_success() -> None:
    world = World(minInterval="1m")
    name = failed(world)
    del world.model["status"]["retrain"]["succeeded"]
    del world.jobs[name]
    world.tick(DAY)
    assert world.reason() == "RetrainFailed"
