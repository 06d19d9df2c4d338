"""A run whose ModelVersion exists has finished: its status is made of the record, and nothing is started."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_operator.desired.run.attempt import spec_digest_before
from hone_operator.reconcile.run import earlier

pytestmark = pytest.mark.pure


@pytest.fixture
def finished(life: Any) -> Any:
    """A life that has ended well; `made` is its ModelVersion."""
    life.tick()
    life.pods(life.world.pod())
    life.tick(10)
    life.ends("Complete", life.world.dead(0, outcome=life.world.result()))
    life.made = life.tick(70).record[0]
    assert life.status["phase"] == "Succeeded"
    return life


def kinds(outcome: Any) -> list[str]:
    return [body["kind"] for body in outcome.create]


def test_status_and_job_lost_nothing_starts_and_the_status_is_the_record(finished: Any, conditions: Any) -> None:
    before = copy.deepcopy(finished.status)
    finished.job["status"], finished.children = {}, []
    tracked = {"uri": "https://mlflow.example.org", "experiment": "tutor", "runId": "0123abcd"}
    finished.made["spec"]["lineage"]["tracking"] = tracked
    outcome = finished.tick(100, made=finished.made)
    assert (outcome.create, outcome.apply, outcome.record) == ((), (), ())
    now = finished.status
    for field in ("phase", "modelVersionName", "completionTime"):
        assert now[field] == before[field], field
    assert now["tracking"] == tracked
    assert now["progress"]["summary"] == "12/12 100%"
    assert now["resolved"]["datasetDigests"] == before["resolved"]["datasetDigests"]
    said = conditions(now)
    assert said["Finished"] == "True/Succeeded"
    assert said["Succeeded"] == f"True/{earlier.REASON}"
    assert said["Ready"] == "True/Succeeded"
    assert said["Stalled"].startswith("False")
    assert set(said) == set(conditions(before))
    assert [e.reason for e in outcome.events] == [earlier.REASON, "Succeeded"]
    assert finished.tick(200, made=finished.made).status is None, "and it stays so"


@pytest.mark.parametrize("number", [1, 2])
def test_an_attempt_that_was_begun_all_the_same_is_stopped(finished: Any, number: int) -> None:
    """The ModelVersion of a backup may be restored after its job."""
    first = {"number": 1, "jobName": "run-1", "startTime": "2026-01-02T03:04:05Z", "outcome": "Running"}
    second = {**first, "number": 2, "jobName": "run-2"}
    finished.job["status"] = {"attempts": [first, second][:number]}
    child = finished.world.child(copy.deepcopy(finished.children[0].body), finished.world.pod())
    child.body["metadata"]["labels"]["hone.dev/attempt"] = str(number)
    child.body["status"] = {"startTime": "2026-01-02T03:04:05Z", "active": 1}
    finished.children = [child]
    outcome = finished.tick(100, made=finished.made)
    assert [body["metadata"]["name"] for body in outcome.delete] == [child.name]
    assert outcome.create == ()
    last = finished.status["attempts"][-1]
    assert last["endTime"] == finished.made["spec"]["lineage"]["finishedAt"]
    assert last["outcome"] == ("Succeeded" if number == 1 else "Preempted")


def test_a_job_that_reports_its_result_is_believed_before_the_model_version(finished: Any) -> None:
    """It knows the attempts, the memory, the numbers."""
    before = copy.deepcopy(finished.status)
    finished.job["status"] = {}
    finished.versions = [finished.made]
    outcome = finished.tick(100, made=finished.made)
    assert [v["metadata"]["name"] for v in outcome.record] == ["tutor-v1"]
    assert finished.status["attempts"] == before["attempts"]
    assert finished.status["memory"] == before["memory"]


def test_a_model_that_did_not_pass_its_gate_restores_a_failed_run(finished: Any, conditions: Any) -> None:
    words = "spec.evaluation.retention.maxDrop: 0.3 is more than 0.1."
    approval = {"state": "Rejected", "by": "spec.evaluation.retention.maxDrop", "comment": words}
    finished.made["spec"]["approval"] = approval
    finished.job["status"], finished.children = {}, []
    finished.tick(100, made=finished.made)
    assert finished.status["failure"]["code"] == "RetentionGateFailed"
    assert conditions(finished.status)["Finished"] == "True/Failed"
    assert finished.status["modelVersionName"] == "tutor-v1"


def test_a_model_that_a_person_rejected_restores_a_run_that_succeeded(finished: Any) -> None:
    finished.made["spec"]["approval"] = {"state": "Rejected", "by": "ada", "comment": "It is rude."}
    finished.job["status"], finished.children = {}, []
    finished.tick(100, made=finished.made)
    assert finished.status["phase"] == "Succeeded"


def test_a_spec_that_this_version_does_not_take_is_restored_as_well(finished: Any) -> None:
    finished.job["status"], finished.children = {}, []
    finished.job["spec"]["ofTheNextRelease"] = True
    finished.tick(100, made=finished.made)
    assert finished.status["phase"] == "Succeeded"


BACKUP = [
    ({"labels": {earlier.VELERO: "nightly"}}, True),
    ({"annotations": {earlier.RESTORED: "true"}}, True),
    ({"annotations": {earlier.RESTORED: "false"}}, False),
    ({}, False),
]


@pytest.mark.parametrize(("marks", "same"), BACKUP)
@pytest.mark.faults("O23")
def test_a_restored_object_has_a_new_uid_and_is_the_same_run(finished: Any, marks: Any, same: bool) -> None:
    """One that was made again without a mark is another run, as always."""
    job = copy.deepcopy(finished.job)
    job["metadata"] |= {"uid": "another", **marks}
    assert (earlier.version_of_run(job, [finished.made]) is not None) == same
    assert earlier.version_of_run(finished.job, [finished.made]) is finished.made


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"training": {"epochs": 2}}, False),
        ({"output": {"modelName": "other"}}, False),
        ({"suspend": True}, True),
        ({"cleanup": {"podsAfter": "1h"}}, True),
        ({"scheduling": {"priorityClassName": "low"}}, True),
        ({"scheduling": {"nodeSelector": {"zone": "b"}, "queueName": "gpus"}}, True),
        ({"resources": {"nodes": 2}, "restarts": {"maxRestarts": 9}}, True),
        ({"method": "SFT"}, True),
    ],
)
@pytest.mark.faults("O23")
def test_a_restored_object_with_another_spec_waits(finished: Any, change: Any, same: bool) -> None:
    """A restore may adapt where it runs. What would make another model starts when a person says so."""
    job = copy.deepcopy(finished.job)
    job["metadata"] |= {"uid": "another", "labels": {earlier.VELERO: "nightly"}}
    job["spec"] |= change
    assert (earlier.version_of_run(job, [finished.made]) is not None) == same
    assert ("restored=false" in (earlier.differs(job, [finished.made]) or "")) != same
    job["metadata"]["annotations"] = {earlier.RESTORED: "false"}
    assert earlier.version_of_run(job, [finished.made]) is earlier.differs(job, [finished.made]) is None


@pytest.mark.faults("O23")
def test_a_restored_object_that_differs_starts_nothing(life: Any, conditions: Any) -> None:
    outcome = life.tick(differs="words")
    assert [body["kind"] for body in outcome.create if body["kind"] == "Job"] == []
    assert conditions(life.status)["Admitted"] == "False/RestoredDiffers"
    assert life.tick(10).create


def test_a_digest_of_an_earlier_version_is_recognised(finished: Any) -> None:
    job, made = copy.deepcopy(finished.job), copy.deepcopy(finished.made)
    job["metadata"] |= {"uid": "another", "labels": {earlier.VELERO: "nightly"}}
    made["spec"]["lineage"]["job"]["specDigest"] = spec_digest_before(FineTuneJobSpec.model_validate(job["spec"]))
    assert earlier.version_of_run(job, [made]) is made


def test_a_digest_of_an_earlier_version_left_out_the_operator_that_it_filled_in() -> None:
    spec = {"model": {"uri": "hf://o/m"}, "datasets": [{"name": "rows"}], "output": {"modelName": "t"}}
    stored = spec | {"scheduling": {"tolerations": [{"key": "a", "operator": "Equal", "value": "x"}]}}
    recorded = "sha256:3d25316c132a0d4d43d84289708fc3ccac2b3a28cf5739997e775330ba834aad"
    assert spec_digest_before(FineTuneJobSpec.model_validate(stored)) == recorded


def test_of_several_models_of_one_name_the_newest_of_this_spec_counts(finished: Any) -> None:
    newer, other = copy.deepcopy(finished.made), copy.deepcopy(finished.made)
    newer["spec"] |= {"version": 2}
    other["spec"] |= {"version": 3}
    other["spec"]["lineage"]["job"]["specDigest"] = "sha256:" + "f" * 64
    job = copy.deepcopy(finished.job)
    job["metadata"] |= {"uid": "another", "annotations": {earlier.RESTORED: "true"}}
    assert earlier.version_of_run(job, [finished.made, newer, other]) is newer
    del other["spec"]["lineage"]["job"]["specDigest"]
    assert earlier.version_of_run(job, [finished.made, newer, other]) is other, (
        "a record of an older operator has no digest"
    )


@pytest.mark.parametrize("name", ["tutor-v9", "none-v1", "x", None])
def test_a_name_that_somebody_wrote_after_the_end_gives_way_to_the_record(finished: Any, name: str | None) -> None:
    finished.job["status"]["modelVersionName"] = name
    finished.tick(100, made=finished.made)
    assert finished.status["modelVersionName"] == "tutor-v1"
    assert finished.tick(200, made=finished.made).status is None, "and it stays so"


def test_the_name_of_a_model_version_that_was_deleted_stays(finished: Any) -> None:
    finished.tick(100, made=None)
    assert finished.status["modelVersionName"] == "tutor-v1"
    finished.job["status"]["modelVersionName"] = "of-another-model-v1"
    finished.tick(200, made=None)
    assert "modelVersionName" not in finished.status


def test_a_run_that_failed_has_made_nothing(life: Any, conditions: Any) -> None:
    life.job["spec"]["deadline"] = "1m"
    life.tick()
    life.tick(100)
    assert conditions(life.status)["Finished"] == "True/Failed"
    life.job["status"]["modelVersionName"] = "tutor-v1"
    life.tick(200)
    assert "modelVersionName" not in life.status
