"""Deliveries of a ModelVersion, decided from what is observed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from support.cluster.platforms import changed
from support.lives.version_life import Life

from hone_api.contract.report import ProgressReport
from hone_operator.progress.numbers import Latest, update
from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.model.model_deliveries import differ, of_model

pytestmark = pytest.mark.pure
BUCKET = "s3://models/team"
REGISTRY = "oci://registry.example.org/team/tutor"
DIGEST = "sha256:" + "1" * 64


@pytest.fixture
def life(world: Any) -> Life:
    """A version that is verified, and goes to a bucket."""
    life = Life(world)
    life.version["spec"]["deliveries"] = [{"uri": BUCKET, "secretName": "hone-keys"}]
    life.verified()
    return life


def arrived(uri: str = BUCKET, sent: int = 10) -> dict[str, Any]:
    result = {"location": f"{uri}/tutor-v1", "digest": DIGEST, "sizeBytes": 10, "uploadedBytes": sent}
    return {"result": {"kind": "Deliver", **result}}


def jobs(outcome: Outcome) -> list[str]:
    return [body["metadata"]["name"] for body in outcome.create if body["kind"] == "Job"]


def states(life: Life) -> list[tuple[str, str | None]]:
    return [(entry["state"], entry.get("reason")) for entry in life.status["deliveries"]]


def test_nothing_is_delivered_before_the_files_are_verified(world: Any, conditions: Any) -> None:
    life = Life(world)
    life.version["spec"]["deliveries"] = [{"uri": BUCKET}]
    assert len(jobs(life.tick())) == 1, "the one that verifies"
    assert conditions(life.status)["Delivered"] == "False/Waiting"


def test_a_job_copies_the_artifact_and_its_result_is_the_status(life: Life, conditions: Any) -> None:
    outcome = life.tick(61)
    (plan,) = [json.loads(b["data"]["plan.json"]) for b in outcome.create if b["kind"] == "ConfigMap"]
    assert plan["artifact"] == {"path": "/artifact", "digest": life.world.digest}
    assert (plan["target"]["uri"], plan["secretPath"], plan["namespace"]) == (BUCKET, "/secrets/source", "team")
    assert conditions(life.status)["Ready"] == "True/Verified", "it can be used meanwhile"
    assert conditions(life.status)["Delivered"] == "False/Delivering"
    assert life.tick(62).create == ()
    life.ends("Complete", life.world.dead(0, outcome=arrived()))
    life.tick(90)
    assert conditions(life.status)["Delivered"] == "True/Delivered"
    (entry,) = life.status["deliveries"]
    assert {name: value for name, value in entry.items() if name != "key"} == {
        "uri": BUCKET,
        "state": "Delivered",
        "location": f"{BUCKET}/tutor-v1",
        "digest": DIGEST,
        "sizeBytes": 10,
        "uploadedBytes": 10,
        "tries": 1,
        "deliveredAt": "2026-01-02T03:05:05Z",
    }
    assert life.children == [], "its Jobs say no more than the status"
    assert life.tick(1000) == Outcome()


def test_an_unreachable_server_is_tried_again_and_the_model_stays_ready(life: Life, conditions: Any) -> None:
    life.tick(61)
    life.ends("Failed", life.world.dead(74, outcome=life.world.failure("DestinationUnreachable", "no route")))
    assert life.tick(62).check_again_in
    assert states(life) == [("Pending", "DestinationUnreachable")]
    assert "Attempt 2 starts at" in life.status["deliveries"][0]["message"]
    assert conditions(life.status)["Ready"] == "True/Verified"
    assert len(jobs(life.tick(1000))) == 1
    assert states(life) == [("Delivering", "DestinationUnreachable")]
    life.ends("Complete", life.world.dead(0, outcome=arrived()))
    life.tick(1100)
    assert (states(life), life.status["deliveries"][0]["tries"]) == ([("Delivered", None)], 2)


def test_an_occupied_place_is_final_until_the_entry_changes(life: Life, conditions: Any) -> None:
    life.tick(61)
    life.ends("Failed", life.world.dead(78, outcome=life.world.failure("DestinationOccupied", "another model")))
    life.tick(62)
    assert states(life) == [("Failed", "DestinationOccupied")]
    assert conditions(life.status)["Delivered"] == "False/DestinationOccupied"
    assert (conditions(life.status)["Ready"], conditions(life.status)["Stalled"][:5]) == ("True/Verified", "False")
    assert life.tick(10_000) == Outcome(), "its Job stays, with the log"
    life.children[-1] = life.world.without_pods(life.children[-1])
    assert life.tick(10_000) == Outcome(), "nor when the pod that said so is gone with its node"
    life.children.clear()
    assert life.tick(10_001).create == (), "nor when its Job is gone"
    life.version["spec"]["deliveries"][0]["uri"] = "s3://models/elsewhere"
    assert len(jobs(life.tick(10_002))) == 1


def test_each_entry_goes_its_own_way(life: Life, conditions: Any) -> None:
    life.version["spec"]["deliveries"].append({"uri": REGISTRY})
    assert len(jobs(life.tick(61))) == 2
    bucket, registry = life.children[-2:]
    life.world.ended(life.world.child(bucket.body, life.world.dead(0, outcome=arrived())), "Complete")
    life.children[-2] = life.world.child(bucket.body, life.world.dead(0, outcome=arrived()))
    life.tick(70)
    assert states(life) == [("Delivered", None), ("Delivering", "Delivering")]
    assert conditions(life.status)["Delivered"] == "False/Delivering"
    assert [job.name for job in life.children] == [registry.name]


def test_an_entry_that_is_removed_takes_its_job_along(life: Life) -> None:
    life.tick(61)
    life.tick(62)
    (job,) = life.children
    life.version["spec"]["deliveries"] = []
    assert life.tick(63).delete == (job.body,)
    assert "deliveries" not in life.status
    assert "Delivered" not in {c["type"] for c in life.status["conditions"]}


def test_a_rejected_version_waits_for_an_approval(life: Life) -> None:
    life.version["spec"]["approval"] = {"state": "Rejected"}
    assert jobs(life.tick(61)) == []
    assert states(life) == [("Pending", "ModelVersionRejected")]
    life.version["spec"]["approval"] = {"state": "Approved"}
    assert len(jobs(life.tick(62))) == 1


def test_a_rejection_stops_the_job_that_runs_and_an_approval_continues(life: Life, conditions: Any) -> None:
    life.tick(61)
    job = life.children[-1]
    life.version["spec"]["approval"] = {"state": "Rejected"}
    assert job.body in life.tick(62).delete
    assert states(life) == [("Pending", "ModelVersionRejected")]
    assert conditions(life.status)["Delivered"] == "False/ModelVersionRejected"
    assert life.tick(63) == Outcome()
    life.version["spec"]["approval"] = {"state": "Approved"}
    (again,) = jobs(life.tick(64))
    assert again != job.name
    life.ends("Complete", life.world.dead(0, outcome=arrived()))
    life.tick(70)
    assert (states(life), life.status["deliveries"][0]["tries"]) == ([("Delivered", None)], 2)


def test_what_arrived_before_a_rejection_was_delivered(life: Life) -> None:
    life.tick(61)
    life.ends("Complete", life.world.dead(0, outcome=arrived()))
    life.version["spec"]["approval"] = {"state": "Rejected"}
    life.tick(62)
    assert states(life) == [("Delivered", None)]


def test_what_arrived_as_an_approval_was_withdrawn_is_recorded(life: Life, conditions: Any) -> None:
    of = model({"uri": REGISTRY, "when": "Approved"})
    life.version["spec"] |= {"deliveries": None, "approval": {"state": "Approved"}}
    looked(life, 61, of)
    life.ends("Complete", life.world.dead(0, outcome=arrived(REGISTRY)))
    life.version["spec"]["approval"] = {"state": "Candidate"}
    looked(life, 70, of)
    (entry,) = life.status["deliveries"]
    assert (entry["state"], entry["location"], entry["tries"]) == ("Delivered", f"{REGISTRY}/tutor-v1", 1)
    assert (conditions(life.status)["Delivered"], life.children) == ("True/Delivered", [])
    assert replace(looked(life, 80, of), check_again_in=None) == Outcome(), "the Model keeps it"
    looked(life, 90, model())
    assert "deliveries" not in life.status


def test_what_arrived_is_recorded_also_if_no_status_named_its_entry(life: Life) -> None:
    of = model({"uri": REGISTRY, "when": "Approved"})
    life.version["spec"] |= {"deliveries": None, "approval": {"state": "Approved"}}
    looked(life, 61, of)
    del life.status["deliveries"]  # the operator was killed before it wrote them
    life.ends("Complete", life.world.dead(0, outcome=arrived(REGISTRY)))
    life.version["spec"]["approval"] = {"state": "Candidate"}
    looked(life, 70, of)
    (entry,) = life.status["deliveries"]
    assert (entry["uri"], entry["state"], entry["tries"]) == (REGISTRY, "Delivered", 1)
    assert replace(looked(life, 80, of), check_again_in=None) == Outcome(), "the Model keeps it"


@pytest.mark.parametrize(
    "annotations", [{}, {"hone.dev/delivery": "no address"}], ids=["an earlier operator", "forged"]
)
def test_a_result_without_an_address_is_no_record(life: Life, annotations: dict[str, str]) -> None:
    life.tick(61)
    life.ends("Complete", life.world.dead(0, outcome=arrived()))
    job = life.children[-1]
    meta = {**job.body["metadata"], "annotations": annotations}
    life.children[-1] = replace(job, body={**job.body, "metadata": meta})
    del life.status["deliveries"]
    life.version["spec"]["deliveries"] = None
    life.tick(62)
    assert "deliveries" not in life.status
    assert life.children == []


@pytest.mark.parametrize("change", ["withdrawn", "rejected"])
def test_a_job_whose_pod_has_a_result_is_not_stopped(life: Life, change: str) -> None:
    of = model({"uri": REGISTRY, "when": "Approved"} if change == "withdrawn" else {"uri": REGISTRY, "when": "Ready"})
    life.version["spec"] |= {"deliveries": None, "approval": {"state": "Approved"}}
    looked(life, 61, of)
    done = life.world.dead(0, outcome=arrived(REGISTRY))
    life.children[-1] = life.world.child(life.children[-1].body, done)
    life.version["spec"]["approval"] = {"state": "Candidate" if change == "withdrawn" else "Rejected"}
    looked(life, 62, of)
    assert len(life.children) == 1, "it stays until it reports what its pod did"
    life.ends("Complete", done)
    looked(life, 63, of)
    assert states(life) == [("Delivered", None)]
    assert life.children == []


def test_a_missing_claim_is_used_once_it_exists(life: Life) -> None:
    life.version["spec"]["deliveries"] = [{"uri": "pvc://serving/team"}]
    assert jobs(life.tick(61, missing_targets=["serving"])) == []
    assert states(life) == [("Pending", "PVCNotFound")]
    outcome = life.tick(76)
    (job,) = [body for body in outcome.create if body["kind"] == "Job"]
    mounts = {m["name"]: m for m in job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["artifact"] == {
        "name": "artifact",
        "mountPath": "/artifact",
        "subPath": "models/job-uid/adapter",
        "readOnly": True,
    }
    assert "readOnly" not in mounts["target"]


@pytest.mark.parametrize(
    ("delivery", "words"),
    [
        ({"uri": "pvc://hone-store/models"}, "hone-store is the store"),
        ({"uri": BUCKET, "form": "GGUF"}, "no form GGUF, it has Adapter"),
    ],
)
def test_what_can_never_be_delivered_says_why(life: Life, delivery: dict[str, str], words: str) -> None:
    life.version["spec"]["deliveries"] = [delivery]
    assert jobs(life.tick(61)) == []
    assert states(life) == [("Failed", "DestinationRefused")]
    assert words in life.status["deliveries"][0]["message"]


def test_a_secret_outside_the_prefix_is_not_mounted(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = changed(life.world.platform, tenants__secret_prefix="hone-")
    monkeypatch.setattr(life.world, "platform", platform, raising=False)
    life.version["spec"]["deliveries"] = [{"uri": BUCKET, "secretName": "database-password"}]
    assert jobs(life.tick(61)) == []
    assert states(life) == [("Pending", "NotAllowed")]
    assert "copy it to a Secret called hone-database-password" in life.status["deliveries"][0]["message"]


def test_a_place_that_the_platform_does_not_list_gets_nothing(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = changed(life.world.platform, tenants__destinations=["s3://elsewhere/*"])
    monkeypatch.setattr(life.world, "platform", platform, raising=False)
    life.version["spec"]["deliveries"] = [{"uri": BUCKET}]
    assert jobs(life.tick(61)) == []
    assert states(life) == [("Pending", "NotAllowed")]
    assert "(tenants.destinations of the chart: s3://elsewhere/*)" in life.status["deliveries"][0]["message"]


def test_a_candidate_waits_where_only_approved_versions_are_delivered(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = changed(life.world.platform, tenants__deliveries="Approved")
    monkeypatch.setattr(life.world, "platform", platform, raising=False)
    assert jobs(life.tick(61)) == []
    assert states(life) == [("Pending", "Waiting")]
    assert f"hone approve {life.version['metadata']['name']}" in life.status["deliveries"][0]["message"]
    life.version["spec"]["approval"] = {"state": "Approved"}
    assert len(jobs(life.tick(62))) == 1
    life.version["spec"]["approval"] = {"state": "Candidate"}
    assert life.children[-1].body in life.tick(63).delete


def test_a_quota_is_waited_for(life: Life) -> None:
    (name,) = jobs(life.tick(61))
    life.children.clear()
    refused = Refusal("Job", name, "QuotaExceeded", "exceeded quota: count/jobs", False)
    del life.status["deliveries"]
    assert life.tick(62, refusals=(refused,)).check_again_in == 15
    assert states(life) == [("Pending", "QuotaExceeded")]


def model(*deliveries: dict[str, Any], alias: str | None = None) -> dict[str, Any]:
    status = {"aliases": [{"name": "champion", "modelVersion": alias}]} if alias else {}
    return {"spec": {"deliveries": list(deliveries)}, "status": status}


def looked(life: Life, seconds: float, of: dict[str, Any]) -> Outcome:
    return life.tick(seconds, model_deliveries=of_model(of, life.version))


@pytest.mark.parametrize(
    ("when", "approved", "alias", "applies"),
    [
        ("Ready", "Candidate", None, True),
        ("Approved", "Candidate", "tutor-v1", False),
        ("Approved", "Approved", None, True),
        ("Aliased", "Approved", "tutor-v2", False),
        ("Aliased", "Candidate", "tutor-v1", True),
    ],
)
def test_a_model_says_which_versions_go_where(life: Life, when: str, approved: str, alias: str, applies: bool) -> None:
    life.version["spec"] |= {"deliveries": None, "approval": {"state": approved}}
    wanted = of_model(model({"uri": REGISTRY, "when": when, "secretName": "hone-k"}, alias=alias), life.version)
    assert wanted == ([{"uri": REGISTRY, "secretName": "hone-k"}] if applies else [])


def test_what_a_model_asks_for_is_delivered_next_to_what_the_version_asks_for(life: Life, conditions: Any) -> None:
    of = model({"uri": REGISTRY, "when": "Aliased"}, {"uri": BUCKET, "when": "Ready"}, alias="tutor-v1")
    assert len(jobs(looked(life, 61, of))) == 2, "the bucket is the version's own"
    life.children[-1] = life.world.ended(
        life.world.child(life.children[-1].body, life.world.dead(0, outcome=arrived(REGISTRY))), "Complete"
    )
    looked(life, 70, of)
    assert [(e["uri"], e["state"]) for e in life.status["deliveries"]] == [
        (BUCKET, "Delivering"),
        (REGISTRY, "Delivered"),
    ]
    assert not differ(of, life.version)
    moved = model(*of["spec"]["deliveries"], alias="tutor-v2")
    assert replace(looked(life, 80, moved), check_again_in=None) == Outcome(), "what was delivered stays there"
    looked(life, 90, model())
    assert [e["uri"] for e in life.status["deliveries"]] == [BUCKET]


MIB = 2**20


def reported(arrived: int, total: int = 100 * MIB, before: Latest | None = None, **hone: Any) -> Latest:
    """A report as the pod sends it, and as the operator keeps it."""
    numbers = {"stage": "Delivering", "step": arrived, "totalSteps": total, **hone}
    time = {"progressPercentage": None, "estimatedRemainingSeconds": 48, "lastUpdatedTime": "2026-01-02T03:04:05Z"}
    report = ProgressReport.model_validate({"trainerStatus": {**time, "metrics": []}, "hone": numbers})
    latest = update(report, 0, before, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert latest is not None
    return latest


def uid(life: Life) -> str:
    """Of the Job that copies."""
    name: str = life.children[-1].body["metadata"]["uid"]
    return name


RATE = {"metrics": {"bytes_per_second": "2.09715e+06"}}


def test_the_status_says_how_far_the_copy_is(life: Life, conditions: Any) -> None:
    assert life.tick(61).check_again_in is not None
    assert "progress" not in life.status["deliveries"][0]
    report = reported(41 * MIB, **RATE)
    outcome = life.tick(62, reports={uid(life): report})
    assert outcome.check_again_in == 15.0
    (entry,) = life.status["deliveries"]
    assert entry["progress"] == {
        "arrivedBytes": 41 * MIB,
        "totalBytes": 100 * MIB,
        "percent": 41,
        "bytesPerSecond": 2097150,
        "eta": "48s",
        "summary": "41.0 of 100.0 MiB, 41%, 2.0 MiB/s, 48s left",
        "lastUpdatedTime": "2026-01-02T03:04:05Z",
    }
    (delivered,) = [c for c in life.status["conditions"] if c["type"] == "Delivered"]
    assert "The files are being copied: 41.0 of 100.0 MiB, 41%, 2.0 MiB/s, 48s left." in delivered["message"]
    assert life.tick(70, reports={uid(life): report}).status is None, "the same report is not another write"
    assert life.tick(71).status is None, "after a restart of the operator, until the next report"
    life.ends("Complete", life.world.dead(0, outcome=arrived()))
    life.tick(90)
    assert "progress" not in life.status["deliveries"][0]


def test_the_next_attempt_begins_without_the_progress_of_the_one_before(life: Life) -> None:
    life.tick(61)
    life.tick(62, reports={uid(life): reported(41 * MIB)})
    unreachable = life.world.failure("DestinationUnreachable", "no route")
    life.ends("Failed", life.world.dead(74, outcome=unreachable))
    life.tick(63)
    assert "progress" not in life.status["deliveries"][0]
    assert len(jobs(life.tick(1000))) == 1
    assert "progress" not in life.status["deliveries"][0]
    life.tick(1001, reports={uid(life): reported(99 * MIB)})
    (entry,) = life.status["deliveries"]
    assert entry["progress"]["percent"] == 99
    assert "no route" in entry["message"], "why it is tried again stays"
    life.tick(1002, reports={uid(life): reported(100 * MIB)})
    assert entry["message"] == life.status["deliveries"][0]["message"]


@pytest.mark.parametrize(
    ("report", "summary"),
    [
        (reported(0), "0.0 of 100.0 MiB, 0%"),
        (reported(100 * MIB, **RATE), "100.0 of 100.0 MiB, 100%, 2.0 MiB/s"),
        (reported(5, total=3), "0.0 of 0.0 MiB, 100%"),
        (reported(41 * MIB, metrics={"bytes_per_second": "nan"}), "41.0 of 100.0 MiB, 41%"),
        (reported(41 * MIB, metrics={"bytes_per_second": "-7"}), "41.0 of 100.0 MiB, 41%"),
        (reported(41 * MIB, metrics={"bytes_per_second": "1e300"}), "41.0 of 100.0 MiB, 41%"),
        (reported(41 * MIB, stage="Training"), None),
        (reported(41 * MIB, total=None), None),
    ],
)
def test_a_report_without_sense_does_no_harm(life: Life, report: Latest, summary: str | None) -> None:
    life.tick(61)
    life.tick(62, reports={uid(life): report})
    assert (life.status["deliveries"][0].get("progress") or {}).get("summary") == summary


def test_without_a_progress_server_nothing_is_looked_at_again(life: Life) -> None:
    life.world.platform = changed(life.world.platform, progress_url=None)
    assert life.tick(61).check_again_in is None


def test_an_entry_of_another_release_is_left_out(life: Life) -> None:
    life.version["spec"]["deliveries"] = None
    outcome = life.tick(61, model_deliveries=[{"uri": "ftp://new"}, {"uri": REGISTRY}])
    assert len(jobs(outcome)) == 1


def test_the_next_attempt_finds_a_secret_that_was_missing(life: Life) -> None:
    life.tick(61)
    life.ends("Failed", life.world.dead(78, outcome=life.world.failure("SecretNotFound", "no Secret hone-keys")))
    assert life.tick(62).check_again_in
    assert states(life) == [("Pending", "SecretNotFound")]
    assert len(jobs(life.tick(100_000))) == 1, "however long that took"


@pytest.mark.parametrize("job_is_gone", [False, True])
def test_a_person_asks_for_another_attempt(life: Life, conditions: Any, job_is_gone: bool) -> None:
    life.tick(61)
    life.ends("Failed", life.world.dead(78, outcome=life.world.failure("DestinationOccupied", "another model")))
    life.tick(62)
    failed = life.children[0].name
    if job_is_gone:
        life.children.clear()
    (delivered,) = [c for c in life.status["conditions"] if c["type"] == "Delivered"]
    assert 'kubectl annotate modelversions.hone.dev tutor-v1 hone.dev/retry="$(date +%s)"' in delivered["message"]
    life.version["metadata"]["annotations"] = {"hone.dev/retry": "1"}
    (job,) = jobs(life.tick(63))
    assert job != failed
    assert [child.name for child in life.children] == [job]
    assert (states(life), life.status["retried"]) == ([("Delivering", "Delivering")], "1")
    life.ends("Failed", life.world.dead(78, outcome=life.world.failure("DestinationOccupied", "another model")))
    life.tick(64)
    assert states(life) == [("Failed", "DestinationOccupied")]
    assert life.tick(10_000) == Outcome(), "the same request is not a second one"
    life.version["metadata"]["annotations"] = {"hone.dev/retry": "2"}
    assert len(jobs(life.tick(10_001))) == 1


def test_a_request_spares_a_pause_and_a_job_that_runs(life: Life) -> None:
    life.tick(61)
    life.version["metadata"]["annotations"] = {"hone.dev/retry": "1"}
    assert (life.tick(62).create, len(life.children)) == ((), 1)
    life.ends("Failed", life.world.dead(74, outcome=life.world.failure("DestinationUnreachable", "no route")))
    assert jobs(life.tick(63)) == []
    life.version["metadata"]["annotations"] = {"hone.dev/retry": "2"}
    assert len(jobs(life.tick(63.5))) == 1


def test_a_request_outlives_an_obstacle(life: Life) -> None:
    life.version["spec"]["deliveries"] = [{"uri": "pvc://serving/team"}]
    life.tick(61)
    life.ends("Failed", life.world.dead(78, outcome=life.world.failure("DestinationOccupied", "another model")))
    life.tick(62)
    life.version["metadata"]["annotations"] = {"hone.dev/retry": "1"}
    life.tick(63, missing_targets=["serving"])
    assert (states(life), life.children) == ([("Pending", "PVCNotFound")], [])
    assert len(jobs(life.tick(80))) == 1


def test_an_entry_that_is_refused_today_does_not_keep_the_model_from_its_record(world: Any, new_life: Any) -> None:
    """A run that began before the rule has such an entry when it ends."""
    long = {"uri": f"{REGISTRY}:{'t' * 129}"}
    life = new_life()
    life.tick()
    life.job["spec"]["output"]["push"] = [long, {"uri": BUCKET}, {"uri": BUCKET}]
    life.ends("Complete", world.dead(0, outcome=world.result()))
    outcome = life.tick(70)
    assert outcome.record[0]["spec"]["deliveries"] == [{"uri": BUCKET}]
    assert life.status["phase"] == "Succeeded"
    warnings = [event.message for event in outcome.events if event.reason == "DeliveryLeftOut"]
    assert warnings == [
        "spec.output.push[0] is not delivered: a repository has at most 255 characters, and a tag 128: shorten it.",
        "spec.output.push[2] is not delivered: push names a uri twice: remove one, or write another path or tag.",
    ]


def test_a_record_goes_without_deliveries_if_none_is_accepted_today(world: Any, new_life: Any) -> None:
    life = new_life()
    life.tick()
    life.job["spec"]["output"]["push"] = [{"uri": f"{REGISTRY}:{'t' * 129}"}]
    life.ends("Complete", world.dead(0, outcome=world.result()))
    assert "deliveries" not in life.tick(70).record[0]["spec"]
