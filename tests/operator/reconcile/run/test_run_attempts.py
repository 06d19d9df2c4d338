"""FineTuneJob, from pod to pod: what each attempt came to, and whether another follows."""

from __future__ import annotations

import json

import pytest

from hone_operator.objects.cache import strip
from hone_operator.reconcile.core.outcome import Outcome, Refusal

pytestmark = pytest.mark.pure


def test_running_when_every_pod_runs(world, new_life, conditions):
    life = new_life(resources={"nodes": 2})
    life.tick()
    life.pods(world.pod(0), world.pod(1, phase="Pending"))
    life.tick(5)
    assert conditions(life.status)["Admitted"] == "True/Scheduled"
    assert conditions(life.status)["Running"] == "False/Starting"
    life.pods(world.pod(0), world.pod(1))
    outcome = life.tick(10)
    assert conditions(life.status)["Running"] == "True/Running"
    assert life.status["phase"] == "Running"
    assert [e.reason for e in outcome.events] == ["Started"]
    assert life.tick(20) == Outcome(check_again_in=15)  # whether Service and NetworkPolicy are still there


def test_a_job_that_somebody_has_emptied_says_so(world, new_life, conditions):
    life = new_life(resources={"nodes": 2})
    life.tick()
    life.pods(world.pod(0), world.pod(1))
    life.tick(5)
    life.pods()
    body = json.loads(json.dumps(life.children[-1].body))
    body["spec"]["parallelism"] = 0
    life.children[-1] = world.child(strip("Job", body))
    life.tick(10)
    assert conditions(life.status)["Running"] == "False/Starting"
    (message,) = (c["message"] for c in life.status["conditions"] if c["type"] == "Running")
    assert message.endswith("""kubectl patch job run-1 -n team --type merge -p '{"spec":{"parallelism":2}}'""")


def test_a_normal_start_warns_of_nothing(world, new_life):
    """Job and Dataset applied together, few rows: as planned until the end."""
    life, events = new_life(), []
    life.datasets["rows"] = world.dataset(ready=False, conditions=[])
    events += life.tick().events
    life.datasets["rows"] = world.dataset(splits=[{"name": "train", "rows": 40}])
    events += life.tick(1).events
    life.pods(world.pod(phase="Pending"))
    events += life.tick(2).events
    life.pods(world.pod())
    events += life.tick(3).events
    life.ends("Complete", world.dead(0, outcome=world.result()))
    events += life.tick(70).events
    assert [e.reason for e in events] == ["DatasetNotReady", "Advice", "Started", "Succeeded"]
    assert {e.type for e in events} == {"Normal"}


def test_unschedulable_quotes_the_scheduler(life, conditions):
    life.tick()
    life.pods(life.world.unscheduled("0/3 nodes"))
    outcome = life.tick(5)
    assert conditions(life.status)["Admitted"] == "False/Unschedulable"
    assert conditions(life.status)["Ready"] == "False/Unschedulable"
    assert [e.reason for e in outcome.events] == ["Unschedulable"]
    life.pods(life.world.pod())
    life.tick(10)
    assert conditions(life.status)["Running"] == "True/Running"


@pytest.mark.parametrize("nodes", [1, 2])
def test_pods_without_a_node_are_looked_at_again_only_for_what_no_watch_delivers(new_life, nodes):
    """Thousands of them wait on a full cluster."""
    life = new_life(resources={"nodes": nodes})
    life.tick()
    life.pods(life.world.unscheduled())
    assert life.tick(5).check_again_in is None
    life.pods(life.world.unscheduled("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."))
    life.children[-1].pods[0]["spec"] = {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}
    assert life.tick(10).check_again_in == 15
    life.children[-1] = life.world.child(life.children[-1].body, refused="exceeded quota: gpus")
    assert life.tick(15).check_again_in == 15


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        ('pods "run-1-0" is forbidden: exceeded quota: gpus', "QuotaExceeded"),
        ('pods "run-1-0" is forbidden: violates PodSecurity "restricted"', "PodRefused"),
    ],
)
def test_pods_that_may_not_be_created(life, conditions, refused, reason):
    life.tick()
    life.children[-1] = life.world.child(life.children[-1].body, refused=refused)
    life.tick(5)
    assert conditions(life.status)["Admitted"] == f"False/{reason}"
    life.pods(life.world.pod())
    life.tick(30)
    assert conditions(life.status)["Admitted"] == "True/Scheduled"


@pytest.mark.faults("O16")
def test_an_image_that_cannot_be_pulled_fails_after_the_start_timeout(life, conditions):
    life.tick()
    life.pods(life.world.waiting("ErrImagePull", "no such image: trainer:1"))
    outcome = life.tick(10)
    assert conditions(life.status)["Running"] == "False/ErrImagePull"
    assert outcome.check_again_in == 890
    outcome = life.tick(901)
    assert life.status["failure"]["code"] == "ImagePullFailed"
    assert "no such image" in life.status["failure"]["message"]
    assert [b["metadata"]["name"] for b in outcome.delete] == ["run-1"]
    assert life.status["attempts"][0]["outcome"] == "Failed"


def test_success_makes_one_model_version(life, conditions):
    life.tick()
    life.ends("Complete", life.world.dead(0, outcome=life.world.result()), seconds=60)
    outcome = life.tick(61)
    ledger, record = outcome.create[0], outcome.record[0]
    assert ledger["metadata"]["name"] == "hone-model-versions"
    assert record["metadata"]["name"] == "tutor-v1"
    assert record["spec"]["artifacts"][0]["uri"] == "pvc://hone-store/models/job-uid/adapter"
    maker = record["spec"]["lineage"]["job"]
    assert maker.pop("specDigest").startswith("sha256:")
    assert maker == {"name": "run", "uid": "job-uid", "generation": 1}
    assert record["spec"]["lineage"]["settings"]["batchSize"] == 8
    assert conditions(life.status)["Succeeded"] == "True/Completed"
    assert conditions(life.status)["Finished"] == "True/Succeeded"
    assert conditions(life.status)["Ready"] == "True/Succeeded"
    assert conditions(life.status)["Reconciling"] == "False/Succeeded"
    assert life.status["completionTime"] == "2026-01-02T03:05:05Z"
    assert life.status["resolved"]["microBatchSize"] == 4
    assert life.status["attempts"][-1]["startStep"] == 0
    assert life.status["progress"]["evalLoss"] == "2.1"
    assert life.status["memory"] == {"peak": 1000}
    assert life.tick(100) == Outcome()


def test_a_job_that_succeeded_never_runs_again(life):
    life.tick()
    life.ends("Complete", life.world.dead(0, outcome=life.world.result()))
    life.tick(61)
    life.children.clear()
    life.datasets.clear()
    assert life.tick(1000) == Outcome()


def test_success_without_a_result_is_tried_again(life):
    life.tick()
    life.ends("Complete", life.world.dead(0), seconds=60)
    life.tick(60)
    assert life.status["attempts"][0]["reason"] == "ResultMissing"
    assert life.tick(70).create


def test_a_failed_attempt_is_followed_by_another_after_a_pause(life, conditions):
    life.tick()
    report = life.world.failure("StorageError", "input/output error")
    life.ends("Failed", life.world.dead(74, outcome=report), seconds=60)
    outcome = life.tick(61)
    assert outcome.create == ()
    assert outcome.check_again_in == 9
    assert conditions(life.status)["Running"] == "False/BackOff"
    assert [(e.reason, e.type) for e in outcome.events] == [("Restarting", "Warning")]
    assert life.status["attempts"][0] | {"endTime": ""} == {
        "number": 1,
        "jobName": "run-1",
        "startTime": "2026-01-02T03:04:05Z",
        "endTime": "",
        "outcome": "Failed",
        "reason": "StorageError",
        "phaseSeconds": {"other": 60},
    }
    outcome = life.tick(70)
    assert [b["metadata"]["name"] for b in outcome.create if b["kind"] == "Job"] == ["run-2"]
    assert life.status["phase"] == "Restarting"
    assert '"attempt": 2' in outcome.create[0]["data"]["plan.json"]
    assert life.tick(71) == Outcome()


def test_both_attempts_work_in_the_same_folders(life):
    first = life.tick().create[0]["data"]["plan.json"]
    life.ends("Failed", life.world.disrupted())
    second = life.tick(61).create[0]["data"]["plan.json"]
    assert '"workPath": "/store/runs/job-uid"' in first
    assert '"workPath": "/store/runs/job-uid"' in second


@pytest.mark.faults("O18")
def test_a_disruption_costs_no_restart_and_no_pause(world, new_life):
    life = new_life(restarts={"maxRestarts": 0})
    life.tick()
    life.ends("Failed", world.disrupted())
    outcome = life.tick(61)
    assert [b["metadata"]["name"] for b in outcome.create if b["kind"] == "Job"] == ["run-2"]
    assert [a["outcome"] for a in life.status["attempts"]] == ["Preempted", "Running"]
    assert [e.reason for e in outcome.events] == ["Preempted"]


@pytest.mark.parametrize(
    ("budget", "failures", "code"),
    [(0, 1, "StorageError"), (1, 2, "RestartsExhausted"), (2, 3, "RestartsExhausted")],
)
def test_the_restart_budget(world, new_life, conditions, budget, failures, code):
    life = new_life(restarts={"maxRestarts": budget})
    life.tick()
    for n in range(failures):
        seconds = 1000 * (n + 1)
        life.ends("Failed", world.dead(74, outcome=world.failure("StorageError", "EIO")), seconds=seconds)
        life.tick(seconds + 1)
        life.tick(seconds + 500)
    assert conditions(life.status)["Failed"] == f"True/{code}"
    assert "EIO" in life.status["failure"]["message"]
    assert len(life.status["attempts"]) == failures


def test_the_newest_ended_attempts_keep_their_jobs_and_older_ones_go(world, new_life):
    life = new_life(restarts={"maxPreemptions": 9})
    life.tick()
    for n in range(1, 6):
        life.ends("Failed", world.disrupted(), seconds=60 * n)
        life.tick(60 * n + 1)
    life.tick(400)
    assert [j.name for j in life.children] == ["run-3", "run-4", "run-5", "run-6"]
    assert [a["outcome"] for a in life.status["attempts"]] == ["Preempted"] * 5 + ["Running"], "the records stay"
    life.ends("Complete", world.dead(0, outcome=world.result()), seconds=500)
    life.tick(501)
    life.tick(502)
    assert [j.name for j in life.children] == ["run-4", "run-5", "run-6"], "also after the end"
    assert life.status["phase"] == "Succeeded"
    assert not life.tick(100_000).create


def test_a_job_whose_attempt_is_not_in_the_status_stays(world, new_life):
    life = new_life(restarts={"maxPreemptions": 9})
    life.tick()
    for n in range(1, 4):
        life.ends("Failed", world.disrupted(), seconds=60 * n)
        life.tick(60 * n + 1)
    life.ends("Failed", world.disrupted(), seconds=300)
    life.job["status"] = {}
    assert life.tick(301).delete == ()
    assert [a["number"] for a in life.status["attempts"]] == [1, 2, 3, 4, 5]
    life.tick(302)
    assert [j.name for j in life.children] == ["run-2", "run-3", "run-4", "run-5"]


@pytest.mark.faults("O18")
def test_the_preemption_budget(world, new_life, conditions):
    life = new_life(restarts={"maxPreemptions": 1})
    life.tick()
    for n in range(2):
        life.ends("Failed", world.disrupted(), seconds=60 * (n + 1))
        life.tick(60 * (n + 1) + 1)
    assert conditions(life.status)["Failed"] == "True/RestartsExhausted"


def test_what_another_attempt_cannot_fix_ends_the_job(life, conditions):
    life.tick()
    pod = life.world.dead(70, outcome=life.world.failure("Diverged", "loss is nan at step 7"))
    life.ends("Failed", pod, log_tail="last words")
    outcome = life.tick(61)
    assert conditions(life.status) | {"Accepted": ""} == {
        "Accepted": "",
        "DatasetReady": "True/Ready",
        "ModelReady": "True/Available",
        "Advised": "False/NothingToAdvise",
        "Admitted": "Unknown/Pending",
        "Running": "False/Diverged",
        "Suspended": "False/NotSuspended",
        "Succeeded": "False/Failed",
        "Failed": "True/Diverged",
        "Finished": "True/Failed",
        "Ready": "False/Diverged",
        "Reconciling": "False/Diverged",
        "Stalled": "True/Diverged",
    }
    assert life.status["failure"] == {
        "code": "Diverged",
        "message": "loss is nan at step 7",
        "hint": "Lower training.learningRate (restarts.onDivergence does it by itself), or check "
        "the rows of the last batch.",
        "rank": 0,
        "pod": "run-1-0-abcde",
        "exitCode": 70,
        "logTail": "last words",
    }
    assert [e.reason for e in outcome.events] == ["Failed"]
    assert life.tick(100) == Outcome()


@pytest.mark.faults("O11")
def test_the_operator_was_down_while_the_next_attempt_started(life):
    """The Job of attempt 2 was made and the operator killed before its status was written."""
    life.tick()
    life.ends("Failed", life.world.disrupted())
    before = life.status
    life.tick(61)
    decided = life.status
    life.job["status"] = before
    life.tick(62)
    assert [a["outcome"] for a in life.status["attempts"]] == ["Preempted", "Running"]
    assert [a["jobName"] for a in life.status["attempts"]] == [a["jobName"] for a in decided["attempts"]]
    assert len(life.children) == 2


@pytest.mark.faults("O11")
def test_the_operator_was_down_while_the_first_attempt_started(new_life, conditions):
    """The Job of attempt 1 was made and the operator killed before its status named it."""
    life, undisturbed = new_life(), new_life()
    for each in (life, undisturbed):
        each.tick()
    life.job.pop("status")
    life.tick(1)
    undisturbed.tick(1)
    assert len(life.children) == 1
    assert conditions(life.status) == conditions(undisturbed.status)


def test_a_job_deleted_by_hand_is_a_disruption(life, conditions):
    life.tick()
    life.children.clear()
    waiting = life.tick(30, stopping=2)
    assert waiting.create == ()
    assert waiting.check_again_in
    assert conditions(life.status)["Running"] == "False/Stopping"
    outcome = life.tick(40, stopping=0)
    assert [b["metadata"]["name"] for b in outcome.create if b["kind"] == "Job"] == ["run-2"]
    first, second = life.status["attempts"]
    assert (first["outcome"], first["reason"], second["outcome"]) == ("Preempted", "Disrupted", "Running")
    assert [(e.reason, e.message) for e in outcome.events] == [("Preempted", "Disrupted: Job run-1 was deleted.")]


def test_of_very_many_attempts_the_oldest_are_counted(new_life):
    """And still spend the budget; what they changed for later ones stays changed."""
    life = new_life(restarts={"maxPreemptions": 140}, resources={"gpusPerNode": 1})
    life.tick()
    life.pods(life.world.pod())
    ran_out = life.world.failure("GpuOutOfMemory", "no room", microBatchSize=8)
    life.ends("Failed", life.world.dead(1, outcome=ran_out))
    life.tick(60)
    for number in range(141):
        life.ends("Failed", life.world.disrupted(), seconds=100 * number)
        life.tick(100 * number)
    assert life.status["failure"]["code"] == "RestartsExhausted"
    listed = life.status["attempts"]
    assert (len(listed), listed[0]["number"], listed[-1]["number"]) == (128, 15, 142)
    assert life.status["earlierAttempts"] == {"number": 14, "failed": 0, "preempted": 13}
    assert {attempt["microBatchLimit"] for attempt in listed} == {4}


def test_a_job_deleted_while_suspended_spends_nothing(life):
    life.tick()
    life.job["spec"]["suspend"] = True
    life.children.clear()
    assert life.tick(30, stopping=0).create == ()
    assert [a["outcome"] for a in life.status["attempts"]] == ["Suspended"]
    life.job["spec"]["suspend"] = False
    assert [b["metadata"]["name"] for b in life.tick(60).create if b["kind"] == "Job"] == ["run-2"]


def test_a_run_that_goes_on_before_its_pods_have_stopped_spends_nothing(life):
    """The pods save a checkpoint and end with 75 after the suspension was taken back: that fails the Job."""
    life.tick()
    life.pods(life.world.pod())
    life.tick(5)
    life.job["spec"]["suspend"] = True
    life.tick(10)
    stopping = life.world.pod()
    stopping["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:15Z"
    life.pods(stopping)
    life.job["spec"]["suspend"] = False
    life.tick(12)
    assert life.status["attempts"][-1]["outcome"] == "Suspended"
    life.ends("Failed", life.world.dead(75, outcome=life.world.failure("Interrupted", "stopped", step=17)))
    outcome = life.tick(61)
    assert [a["outcome"] for a in life.status["attempts"]] == ["Suspended", "Running"]
    assert [b["metadata"]["name"] for b in outcome.create if b["kind"] == "Job"] == ["run-2"]
    assert not [e for e in outcome.events if e.type == "Warning"]


def test_a_run_that_went_on_after_a_suspension_can_be_preempted(life):
    life.tick()
    life.job["spec"]["suspend"] = True
    life.tick(10)
    life.job["spec"]["suspend"] = False
    life.pods(life.world.pod())
    life.tick(20)
    assert life.status["attempts"][-1]["outcome"] == "Running"
    life.ends("Failed", life.world.disrupted())
    life.tick(61)
    assert life.status["attempts"][0]["outcome"] == "Preempted"


@pytest.mark.parametrize("reason", ["QuotaExceeded", "CreateRefused"])
def test_a_refused_job_is_no_attempt_and_is_tried_again(life, conditions, reason):
    outcome = life.tick(refusals=[Refusal("Job", "run-1", reason, "exceeded quota: jobs")])
    assert conditions(life.status)["Admitted"] == f"False/{reason}"
    assert conditions(life.status)["Finished"] == "False/NotFinished"
    assert "attempts" not in life.status
    assert "startTime" not in life.status
    assert outcome.check_again_in == 15
    outcome = life.tick(20)
    assert [b["metadata"]["name"] for b in outcome.create if b["kind"] == "Job"] == ["run-1"]
    assert [a["number"] for a in life.status["attempts"]] == [1]


def test_a_running_job_keeps_its_digests(life):
    life.tick()
    life.datasets["rows"]["status"]["digest"] = "sha256:" + "1" * 64
    life.ends("Failed", life.world.disrupted())
    outcome = life.tick(61)
    assert life.world.digest in outcome.create[0]["data"]["plan.json"]
    assert life.status["resolved"]["datasetDigests"] == {"rows": life.world.digest}


def test_the_time_between_failures_is_what_attempts_show(new_life):
    """A day is assumed, and an attempt that saved at its end lost nothing."""
    life = new_life(checkpoints={"cadence": "Auto"})
    told = []

    def begin(outcome):
        [text] = [b["data"]["plan.json"] for b in outcome.create if b["kind"] == "ConfigMap"]
        told.append(json.loads(text).get("failureInterval"))

    begin(life.tick())
    life.ends("Failed", life.world.dead(75, outcome=life.world.failure("Interrupted", "stopped")), seconds=3600)
    begin(life.tick(3601))
    life.ends("Failed", life.world.dead(137), seconds=7201)
    life.tick(7202)
    begin(life.tick(7300))
    assert told == [None, None, (86400 + 3600 + 3600) // 2]
