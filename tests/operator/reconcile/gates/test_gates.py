"""FineTuneJob, up to its first attempt: what is refused, what is waited for, what recovers."""

from __future__ import annotations

import json

import pytest
from support.cluster.platforms import changed

from hone_api.words.states import CONDITIONS_OF
from hone_operator.reconcile.core.outcome import Outcome

pytestmark = pytest.mark.pure
ALWAYS = {str(t) for t in CONDITIONS_OF["FineTuneJob"]} - {"TasksReady", "RowsEncoded"}
GRPO = {"rewards": [{"type": "Number"}]}
VLLM = {"method": "GRPO", "grpo": {**GRPO, "generation": {"engine": "VLLM"}}, "resources": {"gpusPerNode": 1}}
SERVED = {"method": "GRPO", "grpo": {**GRPO, "generation": {"engine": "VLLM", "endpoint": "http://vllm:8000"}}}


def test_the_first_status_has_every_condition(life, conditions):
    life.tick()
    assert set(conditions(life.status)) == {str(t) for t in CONDITIONS_OF["FineTuneJob"]} - {
        "TasksReady",
        "RowsEncoded",
    }
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
        ({"model": {"uri": "s3://bucket/x"}}, "spec.model.uri"),
        ({"model": {"uri": "s3://host/x"}}, "spec.model.uri"),
        ({"model": {"uri": "https://host/x"}}, "spec.model.uri"),
        ({"output": {"modelName": "m", "version": 3}}, "spec.output.version"),
        ({"deepspeed": {"zeroStage": 3, "offload": "NVMe"}}, "spec.deepspeed.offload"),
    ],
)
def test_what_is_not_supported_yet_is_refused_by_name(new_life, conditions, spec, named):
    life = new_life(**spec)
    outcome = life.tick()
    assert outcome.create == ()
    assert conditions(life.status)["Accepted"] == "False/NotSupportedYet"
    assert conditions(life.status)["Stalled"] == "True/NotSupportedYet"
    assert named in life.status["failure"]["message"]
    assert set(conditions(life.status)) == {str(t) for t in CONDITIONS_OF["FineTuneJob"]} - {
        "TasksReady",
        "RowsEncoded",
    }


def test_all_unsupported_fields_are_named_at_once(new_life):
    life = new_life(deepspeed={"zeroStage": 3, "offload": "NVMe"}, output={"modelName": "m", "version": 3})
    life.tick()
    for name in ("spec.deepspeed.offload", "spec.output.version"):
        assert name in life.status["failure"]["message"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"deepspeed": {}}, "nothing to shard"),
        ({"datasets": [{"name": "rows", "share": "50%"}]}, "the shares are 50% together, not 100%"),
        (
            {"datasets": [{"name": "a", "share": "60%"}, {"name": "b", "share": "60%"}]},
            "the shares are 120% together, not 100%",
        ),
        (
            {"datasets": [{"name": "a"}, {"name": "b", "share": "40%"}, {"name": "c", "share": "60%"}]},
            "nothing is left for the entries that have none",
        ),
        ({"model": {"uri": "pvc://models/../other"}}, "spec.model.uri"),
        ({"resources": {"nodes": 3}}, "batchSize 8 must be a multiple of 3 ranks x microBatchSize 1: set it to 9"),
        ({"training": {"batchSize": 8, "microBatchSize": 8}, "resources": {"nodes": 2}}, "2 ranks x microBatchSize 8"),
        (
            {"training": {"batchSize": 9, "sequenceParallel": 2}, "resources": {"gpusPerNode": 4}},
            "batchSize 9 must be a multiple of 2 groups of 2 ranks x microBatchSize 1: set it to 10",
        ),
        ({"method": "DPO", "training": {"packing": True}}, "spec.training.packing is for method SFT"),
        ({"method": "KTO", "adapter": {"dropout": "0.1"}}, "spec.adapter.dropout: method KTO trains without dropout"),
        ({"method": "KTO", "training": {"batchSize": 1}}, "at least 2 on each rank"),
        ({"method": "KTO", "training": {"batchSize": 11}}, "at least 2 on each rank"),
        ({"training": {"l2ToStart": "0.1"}}, "spec.training.l2ToStart is for adapter None"),
        ({**VLLM, "resources": {}}, "spec.grpo.generation.engine VLLM needs GPUs: set resources.gpusPerNode"),
        (
            {**VLLM, "adapter": {"type": "QLoRA"}},
            "gets weights that are not in 4 bits: use adapter type LoRA",
        ),
        (
            {**VLLM, "deepspeed": {}, "resources": {"gpusPerNode": 2}},
            "whole weights on each rank: remove deepspeed",
        ),
        (
            {**VLLM, "adapter": {"dropout": "0.1"}},
            "spec.adapter.dropout: vLLM samples without it, training would compare probabilities with it: remove it",
        ),
        (VLLM, "this installation names no trainer.vllmImage"),
        ({"resources": {"nodes": 2, "network": "RoCE"}}, "no such network (trainer.networks.roce of the chart"),
        (
            {**SERVED, "adapter": {"type": "None"}},
            "spec.grpo.generation.endpoint: a server takes adapters of type LoRA",
        ),
        ({**SERVED, "adapter": {"type": "DoRA"}}, "not DoRA: use adapter type LoRA, or remove endpoint"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(new_life, conditions, spec, words):
    life = new_life(**spec)
    assert life.tick().create == ()
    others = {
        "spec.model.uri": "InvalidValue",
        "this installation names no trainer.vllmImage": "PlatformUnsuitable",
        "no such network (trainer.networks.roce of the chart": "PlatformUnsuitable",
    }
    assert conditions(life.status)["Accepted"] == f"False/{others.get(str(words), 'ConflictingFields')}"
    assert words in life.status["failure"]["message"]


def test_samples_of_vllm_are_trained_on_in_its_image(world, new_life, monkeypatch):
    monkeypatch.setattr(world, "platform", changed(world.platform, trainer__vllm_image="trainer-vllm:1"))
    life = new_life(**VLLM)
    (job,) = (o for o in life.tick().create if o["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "trainer-vllm:1"
    assert life.status["resolved"]["image"] == "trainer-vllm:1"


def test_samples_of_a_server_need_neither_gpus_nor_an_image_with_vllm(world, new_life):
    life = new_life(**SERVED)
    (job,) = (o for o in life.tick().create if o["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == world.platform.trainer.image


def test_a_refused_job_stays_refused(new_life):
    life = new_life(deepspeed={"zeroStage": 3, "offload": "NVMe"})
    life.tick()
    del life.job["spec"]["deepspeed"]
    assert life.tick(10) == Outcome()


def test_an_attempt_whose_image_was_wrong_goes_on_with_the_corrected_one(world, life, conditions):
    life.tick()
    life.pods(world.waiting("ErrImagePull", "no such image"))
    assert life.tick(5).delete == (), "the image is still the same"
    assert conditions(life.status)["Running"] == "False/ErrImagePull"
    world.platform = changed(world.platform, trainer__image="trainer:2")
    outcome = life.tick(10)
    assert [b["metadata"]["name"] for b in outcome.delete] == ["run-1"]
    assert [e.reason for e in outcome.events] == ["ImageChanged"]
    assert life.tick(15, stopping=1).create == (), "its pods first"
    outcome = life.tick(20, stopping=0)
    (job,) = [b for b in outcome.create if b["kind"] == "Job"]
    assert job["metadata"]["name"] == "run-2"
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "trainer:2"
    assert [a["outcome"] for a in life.status["attempts"]] == ["Preempted", "Running"]


def test_a_missing_dataset_is_used_once_it_exists(life, conditions):
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
    messages = {c["type"]: c["message"] for c in life.status["conditions"]}
    assert "TooManyBadRows: 7 of 9 rows" in messages["DatasetReady"]
    assert "TooManyBadRows: 7 of 9 rows" in messages["Ready"]
    life.datasets = {"rows": life.world.dataset()}
    assert life.tick(20).create
    assert conditions(life.status)["DatasetReady"] == "True/Ready"


def test_a_dataset_of_an_older_generation_is_not_ready(life, conditions):
    life.datasets["rows"]["metadata"]["generation"] = 4
    assert life.tick().create == ()
    assert conditions(life.status)["DatasetReady"] == "False/DatasetNotReady"


def test_a_split_without_rows_is_reported(new_life, conditions):
    life = new_life(datasets=[{"name": "rows", "split": "extra"}])
    assert life.tick().create == ()
    assert conditions(life.status)["DatasetReady"] == "False/SplitNotFound"


@pytest.mark.parametrize("ready", [False, True])
def test_what_needs_a_person_does_not_hide_behind_what_takes_time(life, conditions, ready):
    life.datasets = {"rows": life.world.dataset(ready=ready)}
    life.claim_exists = False
    life.tick()
    assert conditions(life.status)["DatasetReady"] == ("True/Ready" if ready else "False/DatasetNotReady")
    assert life.status["reason"] == "PVCNotFound"
    assert conditions(life.status)["Ready"] == "False/PVCNotFound"
    life.claim_exists = True
    life.tick(15)
    assert ready or life.status["reason"] == "DatasetNotReady"


def test_a_missing_claim_is_used_once_it_exists(life, conditions):
    life.claim_exists = False
    outcome = life.tick()
    assert outcome.create == ()
    assert outcome.check_again_in == 15
    assert conditions(life.status)["ModelReady"] == "False/PVCNotFound"
    life.claim_exists = True
    assert life.tick(15).create


def test_a_model_of_the_hub_is_fetched_before_any_training_pod(world, new_life, conditions):
    life = new_life(model={"uri": "hf://org/model@main", "secretName": "token"})
    outcome = life.tick()
    job = outcome.create[0]
    assert job["metadata"]["labels"]["hone.dev/component"] == "fetch"
    assert conditions(life.status)["ModelReady"] == "False/Fetching"
    assert life.status["phase"] == "Preparing"
    fetched = {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "abc"}
    life.ends("Complete", world.dead(0, outcome={"result": fetched}))
    outcome = life.tick(70)
    assert [b["metadata"]["name"] for b in outcome.create if b["kind"] == "Job"] == ["run-1"]
    assert life.status["resolved"]["modelCommit"] == "abc"
    assert "/store/base-models/org--model/abc" in outcome.create[0]["data"]["plan.json"]


@pytest.mark.attack("manifests")
@pytest.mark.parametrize("digest", ["sha256:" + "a" * 64, None])
def test_every_attempt_compares_what_was_fetched_with_the_digest_of_its_staging(world, new_life, digest):
    life = new_life(model={"uri": "hf://org/model@main"})
    life.tick()
    fetched = {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "abc"}
    fetched |= {"digest": digest} if digest else {}  # a trainer of an earlier version reports none
    life.ends("Complete", world.dead(0, outcome={"result": fetched}))
    plan = json.loads(life.tick(70).create[0]["data"]["plan.json"])
    assert plan.get("modelDigest") == digest
    assert life.status["resolved"].get("modelDigest") == digest


def test_a_model_that_cannot_be_had_is_tried_again_with_backoff(world, new_life, conditions):
    life = new_life(model={"uri": "hf://org/gated"})
    (first,) = world.component("Job", life.tick().create)
    life.ends("Failed", world.dead(78, outcome=world.failure("GatedModelAccessDenied", "403")), seconds=60)
    outcome = life.tick(61)
    assert outcome.create == ()
    assert outcome.check_again_in == 9
    assert conditions(life.status)["ModelReady"] == "False/GatedModelAccessDenied"
    assert conditions(life.status)["Stalled"].startswith("False")
    outcome = life.tick(70)
    (second,) = world.component("Job", outcome.create)
    assert second != first
    assert outcome.delete == ()
    assert conditions(life.status)["ModelReady"] == "False/GatedModelAccessDenied"
    assert [c.name for c in life.shared] == [first, second]


def test_a_model_that_is_unsafe_ends_the_job(world, new_life, conditions):
    life = new_life(model={"uri": "hf://org/pickle"})
    life.tick()
    life.ends("Failed", world.dead(78, outcome=world.failure("UnsafeModel")))
    life.tick(70)
    assert conditions(life.status)["Failed"] == "True/UnsafeModel"
