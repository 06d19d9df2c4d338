"""When a new base starts a job: a branch of the hub that moved, or an alias of another model."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.cluster.platforms import changed
from support.lives.retraining import DAY, HOUR, MINUTE
from support.lives.retraining import World as Repeated

from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.retrain.retrain_base import ObservedForBase
from hone_operator.times import format_time

pytestmark = pytest.mark.pure
OLD, NEW = "a" * 40, "b" * 40


class Watched(Repeated):
    """A Model whose job `first` started from commit OLD of a branch, and the Jobs that look."""

    def __init__(self, world: Any, uri: str = "hf://org/base@main", **base: str) -> None:
        super().__init__(rows=None, base=base, minInterval="1h")
        self.world = world
        self.base = ObservedForBase(world.platform)
        self.looks: list[Any] = []
        self.jobs["first"]["spec"]["model"] = {"uri": uri, "secretName": "hone-hub"}
        self.jobs["first"]["status"]["resolved"]["modelCommit"] = OLD

    def tick(self, after: timedelta = timedelta(0)) -> Outcome:
        self.base = replace(self.base, looks=self.looks)
        outcome = super().tick(after)
        gone = {body["metadata"]["name"] for body in outcome.delete}
        self.looks = [look for look in self.looks if look.name not in gone]
        self.looks += [self.world.child(body) for body in outcome.create if body["kind"] == "Job"]
        return outcome

    def answer(self, outcome: dict[str, Any], how: str = "Complete") -> Outcome:
        """The running look ends, now."""
        exit_code = 0 if how == "Complete" else 78
        [look] = self.looks
        self.looks = [self.world.ended(self.world.child(look.body, self.world.dead(exit_code, outcome=outcome)), how)]
        self.looks[0].body["status"]["conditions"][0]["lastTransitionTime"] = format_time(self.now)
        return self.tick()

    def commit(self, commit: str) -> Outcome:
        return self.answer({"result": {"kind": "Lookup", "commit": commit}})

    @property
    def seen(self) -> dict[str, Any]:
        seen: dict[str, Any] = self.model["status"]["retrain"]["base"]
        return seen


@pytest.fixture
def watched(world: Any) -> Watched:
    return Watched(world, checkEvery="24h")


def test_a_new_commit_starts_one_job_on_unchanged_rows(watched: Watched) -> None:
    watched.tick()
    outcome = watched.commit(OLD)
    assert (watched.reason(), watched.looks) == ("Trained", [])
    assert watched.seen == {
        "uri": "hf://org/base@main",
        "present": OLD,
        "trained": OLD,
        "lookedAt": format_time(watched.now),
    }
    assert 24 * 3600 <= (outcome.check_again_in or 0) <= 24 * 3600 * 1.1, "spread over a tenth"
    watched.tick(DAY + timedelta(hours=3))
    watched.commit(NEW)
    [name] = watched.made()
    assert watched.message() == f"FineTuneJob {name} trains, since its base is now {NEW}."
    watched.jobs[name]["status"]["resolved"] = {"modelCommit": NEW, "datasetDigests": {}}
    watched.end(name, "Succeeded")
    watched.tick(MINUTE)
    assert (watched.reason(), watched.made()) == ("Trained", [name])
    assert watched.seen["trained"] == NEW


@pytest.mark.parametrize("limit", [None, 0])
def test_a_base_that_was_trained_from_on_the_same_rows_is_not_new_again(world: Any, limit: int | None) -> None:
    """An alias that is rolled back, whether the job from that version still exists or only its ModelVersion."""
    watched = Watched(world, uri="models://general@champion")
    watched.model["spec"]["retrain"]["successfulJobsHistoryLimit"] = limit
    watched.jobs["first"]["status"]["resolved"]["modelVersion"] = {"name": "general-v1"}
    rows = watched.jobs["first"]["status"]["resolved"]["datasetDigests"]
    for target, jobs in (("general-v1", 0), ("general-v2", 1), ("general-v3", 2), ("general-v2", 2), ("general-v1", 2)):
        watched.base = replace(watched.base, target=target)
        outcome = watched.tick(2 * DAY)
        for name in (body["metadata"]["name"] for body in outcome.create):
            watched.end(name, "Succeeded")
            watched.jobs[name]["status"]["resolved"] = {"modelVersion": {"name": target}, "datasetDigests": rows}
            lineage = {
                "baseModel": {"modelVersion": target},
                "datasets": [{"name": name, "digest": digest} for name, digest in rows.items()],
            }
            spec = {"modelName": "tutor", "version": jobs, "artifacts": [], "lineage": lineage}
            watched.versions.append({"metadata": {"name": f"tutor-v{jobs}"}, "spec": spec})
        watched.tick()
        assert (watched.reason(), len(watched.versions)) == ("Trained", jobs), target


def test_nobody_looks_more_often_than_asked_or_without_use(watched: Watched) -> None:
    watched.tick()
    watched.commit(OLD)
    watched.tick(23 * HOUR)
    assert watched.looks == []
    watched.model["spec"]["retrain"]["suspend"] = True
    watched.tick(10 * DAY)
    assert watched.looks == [], "no job would start"
    watched.model["spec"]["retrain"]["suspend"] = False
    watched.tick()
    assert len(watched.looks) == 1
    watched.tick(MINUTE)
    assert len(watched.looks) == 1, "one at a time"


def test_a_look_that_fails_says_why_and_is_repeated_later(watched: Watched) -> None:
    watched.tick()
    outcome = watched.answer(watched.world.failure("GatedModelAccessDenied", "no access to org/base"), "Failed")
    assert "no access to org/base" in watched.seen["problem"]
    assert watched.reason() == "Trained", "nothing is known to be new"
    assert 3600 <= (outcome.check_again_in or 0) <= 3600 * 1.1
    watched.tick(2 * HOUR)
    watched.commit(NEW)
    assert "problem" not in watched.seen
    assert len(watched.made()) == 1


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"tenants__secret_prefix": "team-"}, "spec.model.secretName: Secrets for Hone are called team-… here"),
        (
            {"tenants__models": ["hf://allowed/*"]},
            "spec.model.uri hf://org/base@main is not allowed here (tenants.models",
        ),
    ],
)
def test_a_look_has_the_limits_of_tenants(watched: Watched, limits: dict[str, Any], words: str) -> None:
    """A job that was refused for its Secret can still be the one to repeat."""
    allowed, platform = watched.base, changed(watched.world.platform, **limits)
    watched.base = replace(allowed, platform=platform)
    watched.tick()
    assert watched.looks == []
    assert words in watched.seen["problem"]
    watched.base = allowed
    watched.tick()
    watched.commit(OLD)
    assert "problem" not in watched.seen


def test_no_look_is_left_for_a_job_that_cannot_be_repeated(watched: Watched) -> None:
    watched.tick()
    assert len(watched.looks) == 1
    watched.jobs["first"]["spec"]["model"]["uri"] = f"hf://org/base@{NEW}"
    watched.tick(MINUTE)
    assert (watched.reason(), watched.looks) == ("NotRepeatable", [])


def test_a_look_that_the_api_server_refuses_is_no_busy_loop(watched: Watched) -> None:
    first = next(body for body in watched.tick().create if body["kind"] == "Job")
    watched.looks.clear()
    watched.refusals = [Refusal("Job", first["metadata"]["name"], "QuotaExceeded", "exceeded quota")]
    watched.tick()
    assert "exceeded quota" in watched.seen["problem"]
    watched.refusals = []
    watched.tick(MINUTE)
    assert watched.looks == []
    watched.tick(2 * HOUR)
    assert len(watched.looks) == 1


def test_a_failed_job_on_the_new_base_is_not_repeated(watched: Watched) -> None:
    watched.tick()
    watched.commit(NEW)
    watched.tick(HOUR)
    [name] = watched.made()
    watched.end(name, "Failed")
    watched.tick(DAY)
    assert (watched.reason(), watched.made()) == ("RetrainFailed", [name])


def test_a_failed_job_of_before_the_first_look_still_shows(watched: Watched) -> None:
    watched.model["spec"]["retrain"]["rows"] = {"atLeast": 10}
    watched.tick()
    watched.rows(2, 1000, 50)
    watched.tick(DAY)
    watched.tick(DAY)
    [name] = watched.made()
    watched.end(name, "Failed")
    watched.commit(OLD)
    watched.tick(DAY)
    assert (watched.reason(), watched.made()) == ("RetrainFailed", [name])


def test_an_alias_of_another_model_needs_no_look(world: Any) -> None:
    watched = Watched(world, "models://general@champion")
    watched.jobs["first"]["status"]["baseModelVersion"] = "general-v1"
    watched.base = replace(watched.base, target="general-v1")
    watched.tick(DAY)
    assert (watched.reason(), watched.looks) == ("Trained", [])
    watched.base = replace(watched.base, target="general-v2")
    watched.tick(DAY)
    assert len(watched.made()) == 1
    assert watched.looks == []
    assert watched.seen == {"uri": "models://general@champion", "present": "general-v2", "trained": "general-v2"}


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        (f"hf://org/base@{OLD}", "which never changes"),
        ("pvc://models/base", "which never changes"),
        ("models://tutor@champion", "every promotion would start the next job"),
    ],
)
def test_a_base_that_cannot_be_watched_is_refused(world: Any, uri: str, told: str) -> None:
    watched = Watched(world, uri)
    watched.tick()
    assert (watched.reason(), watched.looks) == ("NotRepeatable", [])
    assert told in watched.message()


def test_looks_are_at_least_an_hour_apart(world: Any) -> None:
    watched = Watched(world, checkEvery="5m")
    watched.tick()
    assert watched.message() == "spec.retrain.base.checkEvery is 5m, the least is 1h"


def test_a_look_goes_with_the_field(watched: Watched) -> None:
    watched.tick()
    del watched.model["spec"]["retrain"]
    watched.tick()
    assert watched.looks == []


def test_a_failed_job_on_a_new_base_that_is_deleted_is_repeated_only_on_request(watched: Watched) -> None:
    watched.tick()
    watched.commit(NEW)
    watched.tick(DAY)
    [name] = watched.made()
    watched.jobs[name]["status"]["resolved"] = {
        "modelCommit": NEW,
        "datasetDigests": watched.jobs["first"]["status"]["resolved"]["datasetDigests"],
    }
    watched.end(name, "Failed")
    watched.tick(HOUR)
    assert watched.reason() == "RetrainFailed"
    del watched.jobs[name]
    watched.tick(2 * HOUR)
    assert (watched.reason(), watched.made(), watched.seen["trained"]) == ("RetrainFailed", [], NEW)
    watched.model["metadata"]["annotations"] = {"hone.dev/retrain-requested-at": format_time(watched.now)}
    watched.tick(MINUTE)
    assert watched.made() == [name]
