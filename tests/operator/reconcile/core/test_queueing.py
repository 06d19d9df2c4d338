"""A run in a queue of Kueue: who writes what, what the status says, and what costs a restart."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from support.cluster.platforms import changed
from support.lives.played import PREEMPTED, SHORT, TEAM, Queued, condition

from hone_operator.desired.core import names
from hone_operator.objects.cache import strip
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.staging.staging_attempts import observe_attempts, start_timeout_cause

pytestmark = pytest.mark.pure


@pytest.fixture
def queued(new_life: Any, at: Any) -> Queued:
    return Queued(new_life, at)


def test_partial_admission_is_refused(new_life, conditions):
    life = new_life(resources={"nodes": 4})
    life.job["metadata"]["annotations"] = {"kueue.x-k8s.io/job-min-parallelism": "2"}
    assert life.tick().create == ()
    assert conditions(life.status)["Accepted"] == "False/NotSupportedYet"
    assert "set resources.nodes to what the quota has" in life.status["failure"]["message"]


def test_the_annotation_of_partial_admission_is_read():
    meta = {"name": "run", "namespace": "team", "uid": "u", "annotations": {"kueue.x-k8s.io/job-min-parallelism": "2"}}
    assert strip("FineTuneJob", {"metadata": meta, "spec": {}})["metadata"]["annotations"] == meta["annotations"]


def test_a_job_enters_its_queue_suspended(queued):
    queued.life.tick()
    assert queued.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert queued.job["spec"]["suspend"] is True
    assert "kueue.x-k8s.io/queue-name" not in queued.job["spec"]["template"]["metadata"]["labels"]


def test_a_pod_that_kueue_stops_does_not_fail_its_job(queued):
    """The Job would lose its place in the queue. A disrupted pod ends the attempt, as everywhere."""
    queued.life.tick()
    rules = queued.job["spec"]["podFailurePolicy"]["rules"]
    codes = [code for rule in rules if "onExitCodes" in rule for code in rule["onExitCodes"]["values"]]
    assert codes == [65, 70, 74, 78]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


@pytest.mark.parametrize("level", ["required", "preferred"])
def test_a_topology_is_asked_of_kueue(new_life, at, level):
    queued = Queued(new_life, at, topology={level: "example.org/rack"})
    queued.life.tick()
    wanted = {f"kueue.x-k8s.io/podset-{level}-topology": "example.org/rack"}
    assert queued.job["spec"]["template"]["metadata"]["annotations"] == wanted


def test_without_kueue_the_same_job_starts_without_a_queue(new_life, conditions):
    life = new_life(scheduling=TEAM)
    life.tick()
    assert "kueue.x-k8s.io/queue-name" not in life.children[-1].body["metadata"]["labels"]
    assert "suspend" not in life.children[-1].body["spec"]
    assert conditions(life.status)["Accepted"] == "True/Accepted"
    (accepted,) = (c for c in life.status["conditions"] if c["type"] == "Accepted")
    assert (
        "spec.scheduling.queueName team is not used, because kueue.enabled of the chart is false" in accepted["message"]
    )
    assert "queue" not in life.status
    assert life.status["startTime"]


def test_the_status_says_why_it_waits_and_since_when(queued, conditions):
    queued.life.tick()
    queued.life.tick(1)
    assert queued.status["queue"]["message"].startswith("Kueue has not taken up Job run-1 yet")
    queued.kueue(condition("QuotaReserved", "False", "Pending", SHORT, queued.at(2)))
    outcome = queued.life.tick(3)
    assert queued.status["phase"] == "Queued"
    assert conditions(queued.status)["Admitted"] == conditions(queued.status)["Ready"] == "False/Queued"
    assert queued.status["queue"] == {
        "name": "team",
        "workload": "job-run-1-ab12c",
        "reason": "Pending",
        "message": SHORT,
        "since": queued.at(2),
        "priority": 100,
    }
    assert (outcome.create, outcome.apply, outcome.delete, outcome.check_again_in) == ((), (), (), None)
    assert queued.life.tick(4) == Outcome()


def test_it_waits_from_the_first_status_on(queued, conditions):
    """Kueue has thousands of Jobs to look at, and each status is a write."""
    queued.life.tick()
    assert queued.status["phase"] == "Queued"
    assert conditions(queued.status)["Admitted"] == "False/Queued"
    assert queued.status["queue"]["message"].startswith("Kueue has not taken up Job run-1 yet")
    assert "startTime" not in queued.status
    assert queued.life.tick(1) == Outcome()


def test_what_kueue_says_first_is_an_event(queued):
    def events(outcome: Outcome) -> list[tuple[str, str]]:
        return [(event.reason, event.message) for event in outcome.events if event.reason == "Queued"]

    assert events(queued.life.tick()) == []
    queued.kueue(condition("QuotaReserved", "False", "Pending", SHORT, queued.at(2)))
    assert events(queued.life.tick(3)) == [("Queued", SHORT)]
    queued.kueue(condition("QuotaReserved", "False", "Pending", "another", queued.at(2)))
    assert events(queued.life.tick(4)) == []
    queued.evicted()
    assert [event.reason for event in queued.life.tick(5).events] == ["Requeued"]


def test_that_kueue_says_nothing_at_first_is_no_news(queued):
    """Mostly it admits the Job in the same second: a status and an Event less for each."""
    queued.life.tick()
    queued.kueue()
    assert queued.life.tick(3) == Outcome(check_again_in=8.0)
    assert queued.status["queue"]["message"].startswith("Kueue has not taken up Job run-1 yet")
    [event] = queued.life.tick(11).events
    assert (event.reason, event.message) == ("Queued", "Kueue has not considered it yet.")
    assert queued.status["queue"]["workload"] == "job-run-1-ab12c"
    assert queued.life.tick(12) == Outcome()


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_where_clocks_differ_kueue_is_believed_at_once(queued, seconds):
    queued.life.tick()
    queued.kueue(metadata={"creationTimestamp": queued.at(seconds)})
    assert queued.life.tick(3).check_again_in is None
    assert queued.status["queue"]["message"] == "Kueue has not considered it yet."


def test_a_new_workload_that_somebody_stopped_is_news(queued):
    queued.life.tick()
    queued.kueue(active=False)
    queued.life.tick(3)
    assert queued.status["reason"] == "Deactivated"


def test_a_queue_that_nobody_enabled_is_an_event(queued):
    queued.life.tick()
    queued.life.world.platform = changed(queued.life.world.platform, kueue__enabled=False)
    [event] = queued.life.tick(1).events
    assert (event.reason, "kueue.enabled of the chart is false" in event.message) == ("Queued", True)


def test_a_job_that_kueue_has_admitted_starts(queued, conditions, world):
    """Kueue lets the Job go a moment later, which changes nothing."""
    queued.life.tick()
    queued.admitted()
    queued.job["spec"]["suspend"] = True
    assert queued.life.children[-1].is_suspended
    queued.life.tick(21)
    assert queued.status["phase"] == "Starting"
    assert (queued.status["startTime"], queued.status["queue"]["reason"]) == (queued.at(21), "Admitted")
    assert conditions(queued.status)["Admitted"] == "Unknown/Pending"
    queued.admitted()
    assert queued.life.tick(22) == Outcome()
    queued.evicted()
    queued.life.tick(41)
    assert conditions(queued.status)["Admitted"] == "False/Requeued"


def test_open_admission_checks_are_named(queued):
    queued.life.tick()
    checks = [{"name": "capacity", "state": "Pending", "message": "no node yet"}, {"name": "ok", "state": "Ready"}]
    queued.kueue(condition("QuotaReserved", "True", since=queued.at(2)), admissionChecks=checks)
    queued.life.tick(3)
    assert (queued.status["queue"]["reason"], queued.status["queue"]["message"]) == (
        "AdmissionChecks",
        "capacity: no node yet",
    )
    checks[0]["state"] = "Ready"
    queued.kueue(condition("QuotaReserved", "True", since=queued.at(2)), admissionChecks=checks)
    queued.life.tick(4)
    assert queued.status["queue"]["message"] == "All its checks are ready: Kueue is about to admit it."


def test_waiting_does_not_count_towards_the_deadline(new_life, at, world, conditions):
    queued = Queued(new_life, at, deadline="10m")
    queued.life.tick()
    queued.kueue(condition("QuotaReserved", "False", "Pending", SHORT, at(2)))
    queued.life.tick(3600)
    assert "startTime" not in queued.status
    queued.admitted(world.pod())
    assert queued.life.tick(4000).check_again_in == 600
    assert queued.status["startTime"] == at(4000)


def test_at_the_deadline_kueue_stops_the_pods(new_life, at, world, conditions):
    queued = Queued(new_life, at, deadline="10m")
    queued.life.tick()
    queued.admitted(world.pod())
    queued.life.tick(30)
    outcome = queued.life.tick(630)
    assert [(body["kind"], body["spec"]) for body in outcome.apply] == [("Workload", {"active": False})]
    assert outcome.delete == ()
    assert conditions(queued.status)["Running"] == "True/Stopping"
    queued.kueue(active=False, metadata={"annotations": {"hone.dev/held": "true"}})
    assert len(queued.life.tick(640).delete) == 1
    assert conditions(queued.status)["Failed"] == "True/DeadlineExceeded"


def test_where_kueue_does_not_run_the_deadline_ends_the_run_all_the_same(new_life, at, world, conditions):
    queued = Queued(new_life, at, deadline="10m")
    queued.life.tick()
    queued.admitted(world.pod())
    queued.life.tick(30)
    assert queued.life.tick(1230).delete == ()
    assert conditions(queued.status)["Running"] == "True/Stopping"
    assert len(queued.life.tick(1231).delete) == 1
    assert conditions(queued.status)["Failed"] == "True/DeadlineExceeded"


def test_an_admitted_job_runs_and_the_operator_never_writes_suspend(queued, world, conditions):
    queued.life.tick()
    queued.admitted()
    assert queued.life.tick(20).apply == ()
    assert conditions(queued.status)["Admitted"] == "Unknown/Pending"
    assert queued.status["queue"]["reason"] == "Admitted"
    assert queued.status["queue"]["clusterQueue"] == "research"
    queued.admitted(world.pod())
    assert queued.life.tick(30).apply == ()
    assert conditions(queued.status)["Admitted"] == "True/Scheduled"
    assert queued.status["phase"] == "Running"
    assert queued.life.tick(31) == Outcome()


def test_an_eviction_costs_nothing_and_the_same_attempt_continues(new_life, at, world, conditions):
    queued = Queued(new_life, at, restarts={"maxRestarts": 0, "maxPreemptions": 0})
    queued.life.tick()
    queued.admitted(world.pod())
    queued.life.tick(30)
    stopping = world.pod()
    stopping["metadata"]["deletionTimestamp"] = at(40)
    queued.evicted(stopping)
    outcome = queued.life.tick(41)
    assert (outcome.create, outcome.apply, outcome.delete) == ((), (), ())
    assert queued.status["phase"] == "Requeued"
    assert conditions(queued.status)["Admitted"] == conditions(queued.status)["Running"] == "False/Requeued"
    assert [a["outcome"] for a in queued.status["attempts"]] == ["Requeued"]
    assert queued.status["queue"]["reason"] == "Preempted"
    assert queued.status["queue"]["evictions"] == 1
    assert queued.status["queue"]["message"] == f"{PREEMPTED}. It waits again: {SHORT}"
    assert [(e.reason, e.type) for e in outcome.events] == [("Requeued", "Normal")]
    queued.admitted(stopping)
    queued.life.tick(50)
    assert queued.status["phase"] == "Starting"
    assert [a["outcome"] for a in queued.status["attempts"]] == ["Requeued"]
    queued.admitted(world.pod())
    queued.life.tick(60)
    assert queued.status["phase"] == "Running"
    assert [(a["number"], a["outcome"]) for a in queued.status["attempts"]] == [(1, "Running")]


@pytest.mark.parametrize(("exit_code", "outcome"), [(75, "Requeued"), (137, "Requeued"), (65, "Failed")])
def test_a_job_that_fails_while_kueue_stops_it_costs_nothing_unless_the_run_itself_failed(
    new_life, at, world, exit_code, outcome
):
    queued = Queued(new_life, at, restarts={"maxRestarts": 0, "maxPreemptions": 0})
    queued.life.tick()
    queued.admitted(world.pod())
    queued.life.tick(30)
    queued.evicted(world.pod())
    queued.life.tick(41)
    queued.life.ends("Failed", world.dead(exit_code, outcome=world.failure("BadData") if exit_code == 65 else None))
    created = queued.life.tick(61).create
    assert queued.status["attempts"][0]["outcome"] == outcome
    assert world.component("Job", created) == (["run-2"] if outcome == "Requeued" else [])


def test_the_user_suspends_through_kueue(queued, world, conditions):
    queued.life.tick()
    queued.admitted(world.pod())
    queued.life.tick(30)
    queued.life.job["spec"]["suspend"] = True
    (change,) = queued.life.tick(40).apply
    assert (change["kind"], change["spec"]) == ("Workload", {"active": False})
    assert change["metadata"] == {
        "name": "job-run-1-ab12c",
        "namespace": "team",
        "uid": "wl",
        "annotations": {"hone.dev/held": "true"},
    }
    assert queued.status["phase"] == "Suspended"
    assert queued.status["attempts"][0]["outcome"] == "Suspended"
    held = {"annotations": {"hone.dev/held": "true"}}
    told = condition("Evicted", "True", "Deactivated", "The workload is deactivated", at_ := queued.at(41))
    queued.kueue(
        condition("QuotaReserved", "False", "Pending", "The workload is deactivated", at_),
        told,
        active=False,
        metadata=held,
    )
    assert queued.life.tick(50).apply == ()
    queued.life.job["spec"]["suspend"] = False
    (change,) = queued.life.tick(60).apply
    assert change["spec"] == {"active": True}
    assert change["metadata"]["annotations"] == {"hone.dev/held": "false"}
    assert queued.status["phase"] == "Queued"
    queued.kueue(told, metadata={"annotations": {"hone.dev/held": "false"}})
    assert queued.life.tick(70).apply == ()


@pytest.mark.parametrize("reason", [{}, {"reason": ""}])
def test_an_eviction_without_a_reason_is_one(queued, conditions, reason):
    """Kueue always writes one; others that write Workloads may not."""
    queued.life.tick()
    evicted = {"type": "Evicted", "status": "True", "lastTransitionTime": queued.at(5), "message": PREEMPTED, **reason}
    queued.kueue(evicted)
    queued.life.tick(10)
    assert conditions(queued.status)["Admitted"] == "False/Requeued"
    assert (queued.status["queue"]["reason"], queued.status["queue"]["message"]) == ("Evicted", PREEMPTED)


def test_what_somebody_else_deactivated_stays_so(queued, conditions):
    queued.life.tick()
    told = condition("Evicted", "True", "Deactivated", "The workload is deactivated", queued.at(5))
    queued.kueue(told, active=False)
    outcome = queued.life.tick(10)
    assert outcome.apply == ()
    assert conditions(queued.status)["Admitted"] == "False/Deactivated"
    assert [e.type for e in outcome.events] == ["Warning"]
    assert "kubectl patch workload job-run-1-ab12c -n team --type=merge" in queued.status["queue"]["message"]


LOST = ("QuotaReserved", "False", "Inadmissible", "LocalQueue team doesn't exist")


def test_a_queue_that_does_not_exist_is_the_reason(queued, conditions):
    queued.life.tick()
    queued.kueue(condition(*LOST, queued.at(2)))
    [event] = queued.life.tick(3).events
    assert (event.reason, event.type, event.message) == ("QueueNotFound", "Warning", LOST[3])
    assert conditions(queued.status)["Admitted"] == conditions(queued.status)["Ready"] == "False/QueueNotFound"
    assert (queued.status["phase"], queued.status["reason"]) == ("Queued", "QueueNotFound")
    assert queued.status["queue"]["reason"] == "Inadmissible"
    queued.kueue(condition("QuotaReserved", "False", "Pending", SHORT, queued.at(4)))
    queued.life.tick(5)
    assert (queued.status["phase"], queued.status.get("reason")) == ("Queued", None)


@pytest.mark.parametrize("message", ["LocalQueue team is inactive", "ClusterQueue research doesn't exist"])
def test_a_queue_that_the_platform_stopped_or_did_not_finish_is_no_mistake_of_the_spec(queued, conditions, message):
    queued.life.tick()
    queued.kueue(condition("QuotaReserved", "False", "Inadmissible", message, queued.at(2)))
    queued.life.tick(3)
    assert conditions(queued.status)["Admitted"] == "False/Queued"


def test_a_job_that_a_webhook_put_into_a_queue_is_left_to_kueue(new_life, conditions):
    """A LocalQueue called `default` takes every Job of its namespace, also where kueue.enabled is false."""
    life = new_life()
    life.tick()
    life.children[-1].body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "default"
    life.children[-1].body["spec"]["suspend"] = True
    outcome = life.tick(5)
    assert outcome.apply == ()
    assert conditions(life.status)["Admitted"] == "False/Queued"
    assert "kueue.enabled of the chart is false" in life.status["queue"]["message"]


def test_a_job_that_does_not_train_says_why_it_waits_and_is_not_given_up():
    labels = {names.QUEUE: "staging", names.STAGING_ATTEMPT: "1"}
    body = {"kind": "Job", "metadata": {"name": "fetch-1", "labels": labels}, "spec": {"suspend": True}, "status": {}}
    quota = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient quota for cpu"}
    workload = {"metadata": {"name": "w"}, "spec": {}, "status": {"conditions": [quota]}}
    attempts = observe_attempts([ObservedJob(body, workload=workload)])
    assert attempts.active
    assert attempts.obstacle.reason == "Queued"
    assert attempts.obstacle.message == "Job fetch-1 waits in queue staging: insufficient quota for cpu"
    workload["status"]["conditions"] = [condition(*LOST)]  # the platform named the queue, not the spec
    assert observe_attempts([ObservedJob(body, workload=workload)]).obstacle.reason == "Queued"
    workload["status"]["conditions"] = [quota]
    assert start_timeout_cause(attempts, datetime.max.replace(tzinfo=UTC), seconds=1) is None
    admitted = ObservedJob({**body, "spec": {"suspend": False}}, workload=workload)
    assert observe_attempts([admitted]).obstacle is None
