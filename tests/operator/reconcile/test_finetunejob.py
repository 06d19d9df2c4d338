"""Every state of a FineTuneJob, decided from what is observed."""

from __future__ import annotations

from typing import Any

import pytest

from hone_api.finetunejob_status import ConditionType
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.finetunejob import Observed, reconcile
from hone_operator.reconcile.outcome import Outcome, Refusal

pytestmark = pytest.mark.pure


class Life:
    """A job that is reconciled again and again; keeps the status and the Jobs that were made."""

    def __init__(self, world: Any, **spec: Any):
        self.world = world
        self.job = world.job(**spec)
        self.datasets = {"rows": world.dataset()}
        self.claim_exists: bool | None = True
        self.children: list[Any] = []
        self.report: Any = None
        self.ledger: Any = None
        self.versions: list[Any] = []

    def tick(self, seconds: float = 0, **seen: Any) -> Outcome:
        """Reconcile, and do what was decided."""
        observed = Observed(
            datasets=self.datasets,
            jobs=self.children,
            report=self.report,
            claim_exists=self.claim_exists,
            ledger=self.ledger,
            versions=self.versions,
            **seen,
        )
        outcome = reconcile(self.job, observed, self.world.time(seconds), self.world.platform)
        if outcome.status is not None:
            self.job["status"] = outcome.status
        known = {c.name for c in self.children}
        if not seen.get("refusals"):
            for body in outcome.create:
                if body["kind"] == "Job" and body["metadata"]["name"] not in known:
                    self.children.append(self.world.child(body))
        gone = {b["metadata"]["name"] for b in outcome.delete}
        self.children = [c for c in self.children if c.name not in gone]
        return outcome

    def pods(self, *pods: Any) -> None:
        """The pods of the newest Job."""
        self.children[-1] = self.world.child(self.children[-1].body, *pods)

    def ends(self, type_: str, *pods: Any, seconds: float = 60, **fields: Any) -> None:
        """The newest Job ends with these pods."""
        job = self.world.child(self.children[-1].body, *pods, **fields)
        self.children[-1] = self.world.ended(job, type_, seconds)

    @property
    def status(self) -> dict[str, Any]:
        return self.job["status"]


@pytest.fixture
def life(world):
    return Life(world)


def test_the_first_status_has_every_condition(life, conditions):
    life.tick()
    assert set(conditions(life.status)) == {str(t) for t in ConditionType}
    assert {c["observedGeneration"] for c in life.status["conditions"]} == {1}


def test_a_ready_job_asks_for_everything_at_once(life, conditions):
    outcome = life.tick()
    assert [b["kind"] for b in outcome.create] == ["ConfigMap", "Job"]
    assert life.status["phase"] == "Starting"
    assert life.status["attempts"] == [
        {"number": 1, "jobName": "run-1", "startTime": "2026-01-02T03:04:05Z", "outcome": "Running"}
    ]
    assert conditions(life.status)["Reconciling"] == "True/Starting"
    assert outcome.events == ()


def test_the_same_again_writes_nothing(life):
    life.tick()
    life.pods()
    again = life.tick(100)
    assert again == Outcome()


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"method": "DPO"}, "spec.method"),
        ({"model": {"modelVersion": "tutor-v1"}}, "spec.model.modelVersion"),
        ({"model": {"fineTuneJob": "other"}}, "spec.model.fineTuneJob"),
        ({"model": {"uri": "s3://bucket/x"}}, "spec.model.uri"),
        ({"model": {"uri": "oci://host/x"}}, "spec.model.uri"),
        ({"model": {"uri": "https://host/x"}}, "spec.model.uri"),
        ({"datasets": [{"name": "rows"}, {"name": "more"}]}, "spec.datasets"),
        ({"datasets": [{"name": "rows", "share": "0.5"}]}, "spec.datasets[].share"),
        ({"evaluationDatasets": [{"name": "rows"}]}, "spec.evaluationDatasets"),
        ({"adapter": {"type": "DoRA"}}, "spec.adapter.type DoRA"),
        ({"sft": {"neftuneAlpha": "5"}}, "spec.sft.neftuneAlpha"),
        ({"deepspeed": {"offload": "Optimizer"}, "resources": {"nodes": 2}}, "spec.deepspeed.offload"),
        ({"scheduling": {"queueName": "q"}}, "spec.scheduling.queueName"),
        ({"scheduling": {"topology": {"required": "rack"}}}, "spec.scheduling.topology"),
        ({"output": {"modelName": "m", "version": 3}}, "spec.output.version"),
        ({"output": {"modelName": "m", "push": {"uri": "oci://h/x"}}}, "spec.output.push"),
        ({"output": {"modelName": "m", "formats": ["GGUF"]}}, "spec.output.formats GGUF"),
        ({"tracking": [{"type": "MLflow"}]}, "spec.tracking"),
        ({"podOverrides": {"spec": {}}}, "spec.podOverrides"),
    ],
)
def test_what_is_not_supported_yet_is_refused_by_name(world, conditions, spec, named):
    life = Life(world, **spec)
    outcome = life.tick()
    assert outcome.create == ()
    assert conditions(life.status)["Accepted"] == "False/NotSupportedYet"
    assert conditions(life.status)["Stalled"] == "True/NotSupportedYet"
    assert named in life.status["failure"]["message"]
    assert set(conditions(life.status)) == {str(t) for t in ConditionType}


def test_all_unsupported_fields_are_named_at_once(world):
    life = Life(world, method="KTO", tracking=[{"type": "WandB"}], podOverrides={})
    life.tick()
    for name in ("spec.method", "spec.tracking", "spec.podOverrides"):
        assert name in life.status["failure"]["message"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"deepspeed": {}}, "nothing to shard"),
        ({"model": {"uri": "pvc://models/../other"}}, "spec.model.uri"),
        ({"resources": {"nodes": 3}}, "must be a multiple of 3 ranks"),
        ({"training": {"batchSize": 8, "microBatchSize": 8}, "resources": {"nodes": 2}}, "2 ranks x microBatchSize 8"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(world, conditions, spec, words):
    life = Life(world, **spec)
    assert life.tick().create == ()
    assert conditions(life.status)["Accepted"] == "False/InvalidConfiguration"
    assert words in life.status["failure"]["message"]


def test_a_refused_job_stays_refused(world):
    life = Life(world, method="DPO")
    life.tick()
    life.job["spec"]["method"] = "SFT"
    assert life.tick(10) == Outcome()


def test_a_missing_dataset_heals(life, conditions):
    life.datasets = {}
    outcome = life.tick()
    assert outcome.create == ()
    assert conditions(life.status)["DatasetReady"] == "False/DatasetNotFound"
    assert life.status["phase"] == "Pending"
    assert [e.reason for e in outcome.events] == ["DatasetNotFound"]
    assert life.tick(5) == Outcome()
    life.datasets = {"rows": life.world.dataset(ready=False)}
    life.tick(10)
    assert conditions(life.status)["DatasetReady"] == "False/DatasetNotReady"
    assert "TooManyBadRows: 7 of 9 rows" in life.status["conditions"][1]["message"]
    life.datasets = {"rows": life.world.dataset()}
    assert life.tick(20).create
    assert conditions(life.status)["DatasetReady"] == "True/Ready"


def test_a_dataset_of_an_older_generation_is_not_ready(life, conditions):
    life.datasets["rows"]["metadata"]["generation"] = 4
    assert life.tick().create == ()
    assert conditions(life.status)["DatasetReady"] == "False/DatasetNotReady"


def test_a_split_without_rows_is_told(world, conditions):
    life = Life(world, datasets=[{"name": "rows", "split": "extra"}])
    assert life.tick().create == ()
    assert conditions(life.status)["DatasetReady"] == "False/SplitNotFound"


def test_a_missing_claim_heals(life, conditions):
    life.claim_exists = False
    outcome = life.tick()
    assert outcome.create == ()
    assert outcome.check_again_in == 15
    assert conditions(life.status)["ModelReady"] == "False/PVCNotFound"
    life.claim_exists = True
    assert life.tick(15).create


def test_a_model_of_the_hub_is_fetched_before_any_training_pod(world, conditions):
    life = Life(world, model={"uri": "hf://org/model@main", "secretName": "token"})
    outcome = life.tick()
    job = outcome.create[1]
    assert job["metadata"]["labels"]["hone.dev/component"] == "fetch"
    assert conditions(life.status)["ModelReady"] == "False/Fetching"
    assert life.status["phase"] == "Preparing"
    fetched = {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "abc"}
    life.ends("Complete", world.dead(0, outcome={"result": fetched}))
    outcome = life.tick(70)
    assert [b["metadata"]["name"] for b in outcome.create if b["kind"] == "Job"] == ["run-1"]
    assert life.status["resolved"]["modelCommit"] == "abc"
    assert "/store/base-models/org--model/abc" in outcome.create[0]["data"]["plan.json"]


def test_a_model_that_cannot_be_had_is_tried_again_with_backoff(world, conditions):
    life = Life(world, model={"uri": "hf://org/gated"})
    first = life.tick().create[1]["metadata"]["name"]
    life.ends("Failed", world.dead(78, outcome=world.failure("GatedModelAccessDenied", "403")), seconds=60)
    outcome = life.tick(61)
    assert outcome.create == ()
    assert outcome.check_again_in == 9
    assert conditions(life.status)["ModelReady"] == "False/GatedModelAccessDenied"
    assert conditions(life.status)["Stalled"].startswith("False")
    outcome = life.tick(70)
    second = outcome.create[1]["metadata"]["name"]
    assert second != first
    assert [b["metadata"]["name"] for b in outcome.delete] == [first]
    assert conditions(life.status)["ModelReady"] == "False/GatedModelAccessDenied"
    assert [c.name for c in life.children] == [second]


def test_a_model_that_is_unsafe_ends_the_job(world, conditions):
    life = Life(world, model={"uri": "hf://org/pickle"})
    life.tick()
    life.ends("Failed", world.dead(78, outcome=world.failure("UnsafeModel")))
    life.tick(70)
    assert conditions(life.status)["Failed"] == "True/UnsafeModel"


def test_running_when_every_pod_runs(world, conditions):
    life = Life(world, resources={"nodes": 2})
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
    assert life.tick(20) == Outcome()


def test_unschedulable_tells_the_schedulers_words(life, conditions):
    life.tick()
    life.pods(life.world.unscheduled("0/3 nodes"))
    outcome = life.tick(5)
    assert conditions(life.status)["Admitted"] == "False/Unschedulable"
    assert conditions(life.status)["Ready"] == "False/Unschedulable"
    assert [e.reason for e in outcome.events] == ["Unschedulable"]
    life.pods(life.world.pod())
    life.tick(10)
    assert conditions(life.status)["Running"] == "True/Running"


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


def test_a_refused_job_object_is_told_and_tried_again(life, conditions):
    refusal = Refusal("Job", "run-1", "QuotaExceeded", "exceeded quota: count/jobs.batch")
    outcome = life.tick(refusals=[refusal])
    assert conditions(life.status)["Admitted"] == "False/QuotaExceeded"
    assert outcome.check_again_in == 15
    outcome = life.tick(15)
    assert [b["kind"] for b in outcome.create] == ["ConfigMap", "Job"]
    assert len(life.status["attempts"]) == 1


def test_success_makes_one_model_version(life, conditions):
    life.tick()
    life.ends("Complete", life.world.dead(0, outcome=life.world.result()), seconds=60)
    outcome = life.tick(61)
    ledger, record = outcome.create[0], outcome.record[0]
    assert ledger["metadata"]["name"] == "hone-model-versions"
    assert record["metadata"]["name"] == "tutor-v1"
    assert record["spec"]["artifacts"][0]["uri"] == "pvc://hone-store/models/job-uid/adapter"
    assert record["spec"]["lineage"]["job"] == {"name": "run", "uid": "job-uid", "generation": 1}
    assert record["spec"]["lineage"]["hyperParameters"]["training"]["batchSize"] == 8
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


def test_a_disruption_costs_no_restart_and_no_pause(world):
    life = Life(world, restarts={"maxRestarts": 0})
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
def test_the_restart_budget(world, conditions, budget, failures, code):
    life = Life(world, restarts={"maxRestarts": budget})
    life.tick()
    for n in range(failures):
        seconds = 1000 * (n + 1)
        life.ends("Failed", world.dead(74, outcome=world.failure("StorageError", "EIO")), seconds=seconds)
        life.tick(seconds + 1)
        life.tick(seconds + 500)
    assert conditions(life.status)["Failed"] == f"True/{code}"
    assert "EIO" in life.status["failure"]["message"]
    assert len(life.status["attempts"]) == failures


def test_the_preemption_budget(world, conditions):
    life = Life(world, restarts={"maxPreemptions": 1})
    life.tick()
    for n in range(2):
        life.ends("Failed", world.disrupted(), seconds=60 * (n + 1))
        life.tick(60 * (n + 1) + 1)
    assert conditions(life.status)["Failed"] == "True/RestartsExhausted"


def test_what_another_attempt_cannot_mend_ends_the_job(life, conditions):
    life.tick()
    pod = life.world.dead(70, outcome=life.world.failure("Diverged", "loss is nan at step 7"))
    life.ends("Failed", pod, log_tail="last words")
    outcome = life.tick(61)
    assert conditions(life.status) | {"Accepted": ""} == {
        "Accepted": "",
        "DatasetReady": "True/Ready",
        "ModelReady": "True/Available",
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
        "hint": "Lower training.learningRate, or look at the rows of the last batch.",
        "rank": 0,
        "pod": "run-1-0-abcde",
        "exitCode": 70,
        "logTail": "last words",
    }
    assert [e.reason for e in outcome.events] == ["Failed"]
    assert life.tick(100) == Outcome()


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


def test_a_job_deleted_by_hand_is_made_again(life):
    life.tick()
    life.children.clear()
    outcome = life.tick(30)
    assert [b["metadata"]["name"] for b in outcome.create if b["kind"] == "Job"] == ["run-1"]
    assert len(life.status["attempts"]) == 1


def test_a_running_job_keeps_its_digests(life):
    life.tick()
    life.datasets["rows"]["status"]["digest"] = "sha256:" + "1" * 64
    life.ends("Failed", life.world.disrupted())
    outcome = life.tick(61)
    assert life.world.digest in outcome.create[0]["data"]["plan.json"]
    assert life.status["resolved"]["datasetDigests"] == {"rows": life.world.digest}


def test_suspend_and_resume(life, conditions):
    life.tick()
    life.pods(life.world.pod())
    life.tick(5)
    life.job["spec"]["suspend"] = True
    life.job["metadata"]["generation"] = 2
    outcome = life.tick(10)
    assert outcome.apply[0]["spec"] == {"suspend": True}
    assert outcome.apply[0]["metadata"]["uid"] == "uid-of-run-1"
    assert conditions(life.status)["Suspended"] == "True/SuspendedByUser"
    assert conditions(life.status)["Reconciling"] == "False/SuspendedByUser"
    assert life.status["phase"] == "Suspended"
    assert life.status["attempts"][0]["outcome"] == "Suspended"
    assert [e.reason for e in outcome.events] == ["Suspended"]
    life.children[-1].body["spec"]["suspend"] = True
    life.pods()
    assert life.tick(20) == Outcome()
    life.job["spec"]["suspend"] = False
    outcome = life.tick(30)
    assert outcome.apply[0]["spec"] == {"suspend": False}
    assert [e.reason for e in outcome.events] == ["Resumed"]
    assert life.status["attempts"][0]["outcome"] == "Running"


def test_suspended_from_the_start_nothing_is_asked_for(world, conditions):
    life = Life(world, suspend=True)
    assert life.tick().create == ()
    assert conditions(life.status)["Suspended"] == "True/SuspendedByUser"
    assert life.status["phase"] == "Suspended"
    life.job["spec"]["suspend"] = False
    assert life.tick(10).create


def test_pods_that_fail_because_of_suspend_cost_nothing(world):
    life = Life(world, restarts={"maxRestarts": 0, "maxPreemptions": 0})
    life.tick()
    life.job["spec"]["suspend"] = True
    life.ends("Failed", world.dead(75, outcome=world.failure("Interrupted")))
    assert life.tick(61).create == ()
    assert life.status["attempts"][0]["outcome"] == "Suspended"
    life.job["spec"]["suspend"] = False
    assert world.component("Job", life.tick(100).create) == ["run-2"]


def test_the_deadline_counts_from_the_first_attempt(world, conditions):
    life = Life(world, deadline="10m")
    life.tick()
    life.pods(world.pod())
    assert life.tick(100).check_again_in == 500
    outcome = life.tick(600)
    assert conditions(life.status)["Failed"] == "True/DeadlineExceeded"
    assert [b["metadata"]["name"] for b in outcome.delete] == ["run-1"]
    assert life.tick(700) == Outcome()


def test_a_run_that_succeeded_beats_the_deadline(world, conditions):
    life = Life(world, deadline="10m")
    life.tick()
    life.ends("Complete", world.dead(0, outcome=world.result()), seconds=599)
    life.tick(700)
    assert conditions(life.status)["Succeeded"] == "True/Completed"


def test_cleanup_removes_the_children_and_makes_none(world):
    life = Life(world, cleanup={"podsAfter": "1h"})
    life.tick()
    life.ends("Complete", world.dead(0, outcome=world.result()), seconds=60)
    life.tick(61)
    assert life.tick(100).check_again_in == 3560
    outcome = life.tick(3661)
    assert [b["metadata"]["name"] for b in outcome.delete] == ["run-1"]
    assert outcome.create == ()
    assert life.tick(4000) == Outcome()


def test_an_edit_after_the_end_only_moves_the_generation(life):
    life.tick()
    life.ends("Complete", life.world.dead(0, outcome=life.world.result()))
    life.tick(61)
    before = dict(life.status)
    life.job["metadata"]["generation"] = 2
    life.tick(100)
    assert life.status["observedGeneration"] == 2
    assert {c["observedGeneration"] for c in life.status["conditions"]} == {2}
    assert life.status["phase"] == before["phase"]
    assert [c["lastTransitionTime"] for c in life.status["conditions"]] == [
        c["lastTransitionTime"] for c in before["conditions"]
    ]


def test_progress_of_the_current_attempt_reaches_the_status(life, world):
    from hone_api.finetunejob_status import JobProgress

    life.tick()
    life.pods(world.pod())
    progress = JobProgress(step=4, total_steps=10, percent=40, loss="1.5", summary="4/10 40%")
    life.report = Latest(attempt=1, progress=progress, received=world.time(10))
    life.tick(10)
    assert life.status["progress"]["summary"] == "4/10 40%"
    assert life.status["metrics"] == [{"name": "loss", "points": [{"step": 4, "value": "1.5"}]}]
    newer = progress.model_copy(update={"last_updated_time": "2026-01-02T03:09:00Z"})
    life.report = Latest(attempt=1, progress=newer, received=world.time(20))
    assert life.tick(20) == Outcome()
    life.report = Latest(attempt=2, progress=JobProgress(step=1), received=world.time(30))
    assert life.tick(30) == Outcome()


def test_a_job_being_deleted_is_left_alone(life):
    life.job["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert life.tick() == Outcome()
