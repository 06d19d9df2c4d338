"""Chains: a job that begins with another job's model, or with a ModelVersion by name."""

from __future__ import annotations

import json

import pytest

from hone_operator.desired.core import modelref
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.upstream import Found, Upstream
from hone_operator.reconcile.core.upstream import version as version_by_name

pytestmark = pytest.mark.pure
D1, D2 = ("sha256:" + c * 64 for c in "12")


def job(name, phase="Running", **fields):
    """A FineTuneJob upstream."""
    reasons = {"Succeeded": "Completed", "Failed": "Diverged"}
    conditions = [
        {"type": t, "status": str(phase == t), "reason": reasons.get(phase, "NotFinished"), "message": "loss is nan"}
        for t in ("Succeeded", "Failed")
    ]
    status = {"phase": phase, "conditions": conditions}
    if phase == "Succeeded":
        status["modelVersionName"] = f"{name}-v1"
    return {
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"model": {"uri": "hf://a/b"}} | fields,
        "status": status,
    }


def version(forms=("Adapter", "Merged"), ready=True, method="SFT", approval="Candidate", **lineage):
    """A ModelVersion that an earlier stage made."""
    uri = "pvc://hone-store/models/uid-0"
    base = {"uri": "hf://org/model@main", "commit": "abc", "location": "pvc://hone-store/base-models/org--model/abc"}
    return {
        "metadata": {"name": "sft-v1", "namespace": "team"},
        "spec": {
            "modelName": "sft",
            "version": 1,
            "artifacts": [
                {"format": f, "uri": f"{uri}/{f.lower()}", "digest": D1 if f == "Adapter" else D2, "sizeBytes": 1}
                for f in forms
            ],
            "lineage": {
                "baseModel": base,
                "datasets": [{"name": "rows", "split": "train", "digest": D2}],
                "job": {"name": "sft", "uid": "uid-0"},
                "method": method,
                "hyperParameters": {"training": {"batchSize": 8}},
                "seed": 42,
                **lineage,
            },
            "approval": {"state": approval},
        },
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready), "reason": "Verified" if ready else "Verifying"}]
        },
    }


def chained(new_life, upstream, **spec):
    life = new_life(model={"fineTuneJob": "sft"}, **spec)
    life.upstream = upstream
    return life


def plan_of(outcome):
    (config,) = (b for b in outcome.create if b["kind"] == "ConfigMap")
    return json.loads(config["data"]["plan.json"])


def test_a_stage_waits_for_the_one_before_it_and_begins_with_its_model(new_life, conditions):
    life = chained(new_life, Upstream())
    first = life.tick()
    assert (first.create, conditions(life.status)["ModelReady"]) == ((), "False/FineTuneJobNotFound")
    assert [e.reason for e in first.events] == ["FineTuneJobNotFound"]

    life.upstream = Upstream({"sft": job("sft")})
    outcome = life.tick(10)
    assert (outcome.create, outcome.events) == ((), ())  # as planned: nobody has to fix anything
    assert conditions(life.status)["ModelReady"] == "False/WaitingForJob"
    assert conditions(life.status)["Stalled"].startswith("False/")
    assert life.tick(20) == Outcome()

    life.upstream = Upstream({"sft": job("sft", "Succeeded")}, {"sft-v1": version(ready=False)})
    life.tick(30)
    assert conditions(life.status)["ModelReady"] == "False/WaitingForModelVersion"

    life.upstream = Upstream({"sft": job("sft", "Succeeded")}, {"sft-v1": version()})
    plan = plan_of(life.tick(40))
    assert conditions(life.status)["ModelReady"] == "True/Available"
    assert plan["modelPath"] == "/store/models/uid-0/merged"
    assert (plan["modelVersion"], plan["modelDigest"]) == ("sft-v1", D2)
    assert "modelAdapter" not in plan
    assert life.status["resolved"]["modelVersion"]["name"] == "sft-v1"


def test_what_was_pinned_outlives_what_is_upstream_and_is_recorded_by_value(world, new_life):
    life = chained(new_life, Upstream({"sft": job("sft", "Succeeded")}, {"sft-v1": version()}))
    life.tick()
    life.upstream = Upstream()
    life.ends("Failed", world.dead(1, outcome=world.failure("TrainerError")))
    life.tick(61)
    assert plan_of(life.tick(200))["modelPath"] == "/store/models/uid-0/merged"
    life.ends("Complete", world.dead(0, outcome=world.result()), seconds=300)
    (made,) = life.tick(301).record
    lineage = made["spec"]["lineage"]
    assert lineage["baseModel"] == {
        "uri": "pvc://hone-store/models/uid-0/merged",
        "commit": D2,
        "modelVersion": "sft-v1",
        "location": "pvc://hone-store/models/uid-0/merged",
        "digest": D2,
    }
    (parent,) = lineage["ancestors"]
    assert (parent["modelVersion"], parent["digest"], parent["method"]) == ("sft-v1", D2, "SFT")
    assert parent["baseModel"]["commit"] == "abc"
    assert parent["datasets"] == [{"name": "rows", "split": "train", "digest": D2}]


def test_the_chain_grows_by_one_stage_at_a_time(new_life):
    grandparent = {k: v for k, v in version()["spec"]["lineage"].items()} | {"modelVersion": "dapt-v1", "digest": D1}
    life = new_life(model={"modelVersion": "sft-v1"})
    life.upstream = Upstream(versions={"sft-v1": version(ancestors=[grandparent])})
    (training,) = (b for b in life.tick().create if b["kind"] == "Job")
    recorded = json.loads(training["metadata"]["annotations"]["hone.dev/ancestors"])
    assert [a["modelVersion"] for a in recorded] == ["dapt-v1", "sft-v1"]


def test_an_adapter_alone_is_merged_into_its_base(new_life):
    life = new_life(model={"modelVersion": "sft-v1"})
    life.upstream = Upstream(versions={"sft-v1": version(forms=("Adapter",))})
    plan = plan_of(life.tick())
    assert plan["modelPath"] == "/store/base-models/org--model/abc"
    assert plan["modelAdapter"] == {"path": "/store/models/uid-0/adapter", "digest": D1}


def test_a_version_on_another_volume_is_mounted(new_life):
    elsewhere = version(forms=("Full",))
    elsewhere["spec"]["artifacts"][0]["uri"] = "pvc://archive/old/full"
    life = new_life(model={"modelVersion": "sft-v1"})
    life.upstream = Upstream(versions={"sft-v1": elsewhere})
    outcome = life.tick()
    assert plan_of(outcome)["modelPath"] == "/models/archive/old/full"
    (training,) = (b for b in outcome.create if b["kind"] == "Job")
    volumes = training["spec"]["template"]["spec"]["volumes"]
    assert {"claimName": "archive", "readOnly": True} in [v.get("persistentVolumeClaim") for v in volumes]


@pytest.mark.parametrize(
    ("upstream", "code", "words"),
    [
        (
            Upstream({"sft": job("sft", "Failed")}),
            "UpstreamFailed",
            "FineTuneJob sft failed with Diverged: loss is nan",
        ),
        (
            Upstream({"sft": job("sft", "Succeeded")}, {"sft-v1": version(method="Reward")}),
            "UnusableModelVersion",
            "is a reward model",
        ),
        (
            Upstream({"sft": job("sft", "Succeeded")}, {"sft-v1": version(forms=("GGUF",))}),
            "UnusableModelVersion",
            "has only GGUF",
        ),
    ],
)
def test_a_stage_that_can_never_begin_fails_with_the_reason(new_life, conditions, upstream, code, words):
    life = chained(new_life, upstream)
    assert life.tick().create == ()
    assert conditions(life.status)["Failed"] == f"True/{code}"
    assert conditions(life.status)["ModelReady"] == f"False/{code}"
    assert conditions(life.status)["Stalled"] == f"True/{code}"
    assert words in life.status["failure"]["message"]


def test_a_version_that_failed_verification_ends_the_chain(new_life, conditions):
    bad = version(ready=False)
    bad["status"]["conditions"] = [
        {"type": "Ready", "status": "False", "reason": "ManifestMismatch", "message": "model.safetensors differs"},
        {"type": "Stalled", "status": "True", "reason": "ManifestMismatch"},
    ]
    life = new_life(model={"modelVersion": "sft-v1"})
    life.upstream = Upstream(versions={"sft-v1": bad})
    life.tick()
    assert conditions(life.status)["Failed"] == "True/UpstreamFailed"
    assert "ManifestMismatch: model.safetensors differs" in life.status["failure"]["message"]


def test_a_rejected_version_is_not_used_until_it_is_approved(new_life, conditions):
    life = new_life(model={"modelVersion": "sft-v1"})
    life.upstream = Upstream(versions={"sft-v1": version(approval="Rejected")})
    assert life.tick().create == ()
    assert conditions(life.status)["ModelReady"] == "False/ModelVersionRejected"
    life.upstream = Upstream(versions={"sft-v1": version(approval="Approved")})
    assert life.tick(10).create


def test_a_circle_is_refused(new_life, conditions):
    life = chained(new_life, Upstream({"sft": job("sft", model={"fineTuneJob": "run"}), "run": job("run")}))
    life.upstream = Upstream({"sft": job("sft", model={"fineTuneJob": "run"}), "run": life.job})
    assert life.tick().create == ()
    assert conditions(life.status)["Accepted"] == "False/CircularReference"
    assert "run -> sft -> run" in life.status["failure"]["message"]


def test_a_job_that_waits_for_a_circular_reference_is_also_refused(new_life, conditions):
    circular = {"sft": job("sft", model={"fineTuneJob": "dpo"}), "dpo": job("dpo", model={"fineTuneJob": "sft"})}
    life = chained(new_life, Upstream(circular))
    life.tick()
    assert "run -> sft -> dpo -> sft" in life.status["failure"]["message"]


def test_the_reward_model_is_also_waited_for_and_pinned():
    spec = {
        "ppo": {"rewardModelVersion": "judge-v1"},
        "grpo": {"rewards": [{"type": "Number"}, {"type": "RewardModel", "rewardModel": {"modelVersion": "taste-v2"}}]},
    }
    assert modelref.references(spec) == ["judge-v1", "taste-v2"]
    spec["evaluation"] = {"rewards": [spec["grpo"]["rewards"][1], {"rewardModel": {"modelVersion": "other-v1"}}]}
    assert modelref.references(spec) == ["judge-v1", "taste-v2", "other-v1"]


def test_a_teacher_answers_and_is_no_reward_model():
    spec = {"distillation": {"teacherModelVersion": "large-v1"}}
    assert modelref.references(spec) == [modelref.teacher(spec)] == ["large-v1"]


def test_a_teacher_behind_an_api_is_no_modelversion_to_wait_for():
    assert modelref.references({"distillation": {"teacherEndpoint": {"endpoint": "https://models.example/v1"}}}) == []


@pytest.mark.parametrize(
    ("method", "reward", "kind"), [("Reward", True, Found), ("SFT", True, Cause), ("Reward", False, Cause)]
)
def test_a_reward_model_scores_and_a_language_model_is_tuned(method, reward, kind):
    found = version_by_name("sft-v1", Upstream(versions={"sft-v1": version(method=method)}), reward=reward)
    assert isinstance(found, kind)
