"""What can be edited and what cannot: one object is one run, one record is one model."""

from collections.abc import Iterator
from typing import Any

import pytest

from hone_api.blocks.placement import Scheduling
from hone_api.kinds.finetunejob import IMMUTABLE, FineTuneJobSpec
from hone_api.kinds.modelversion import ModelVersionSpec

pytestmark = pytest.mark.apiserver

JOB, VERSION = "FineTuneJob", "ModelVersion"
FULL: dict[str, Any] = {
    "evaluationDatasets": [{"name": "rows"}],
    "sft": {"neftuneAlpha": "5"},
    "earlyStopping": {"patience": 2},
    "deepspeed": {"zeroStage": 2},
    "deadline": "12h",
    "budget": {"gpuHours": 40},
    "submittedBy": "ada",
    "use": "Commercial",
    "tracking": [{"type": "MLflow", "uri": "https://mlflow.example.org"}],
    "pod": {"labels": {"team": "a"}},
    "scheduling": {
        "queueName": "team",
        "workloadPriorityClass": "high",
        "managedBy": "MultiKueue",
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "a"}],
        "topology": {"required": "rack"},
    },
}
CHANGED: dict[str, Any] = {
    "model": {"secretName": "hub"},
    "datasets": [{"name": "other"}],
    "evaluationDatasets": [{"name": "other"}],
    "method": "DPO",
    "sft": {"neftuneAlpha": "6"},
    "adapter": {"rank": 8},
    "training": {"learningRate": "1e-4"},
    "earlyStopping": {"patience": 3},
    "checkpoints": {"keep": 5},
    "evaluation": {"samples": 0},
    "resources": {"nodes": 2},
    "pod": {"labels": {"team": "b"}},
    "deepspeed": {"zeroStage": 1},
    "restarts": {"maxRestarts": 0},
    "deadline": "13h",
    "budget": {"gpuHours": 41},
    "output": {"merge": True},
    "tracking": [{"type": "WandB"}],
    "submittedBy": "grace",
    "use": "NonCommercial",
}
BLOCKS = {
    "dapt": "DAPT",
    "dpo": "DPO",
    "kto": "KTO",
    "orpo": "ORPO",
    "reward": "Reward",
    "ppo": "PPO",
    "grpo": "GRPO",
    "distillation": "Distillation",
}
SCHEDULING_CHANGED: dict[str, Any] = {
    "queueName": "other",
    "workloadPriorityClass": "low",
    "managedBy": None,
    "nodeSelector": {"a": "c"},
    "tolerations": [{"key": "b"}],
    "topology": {"required": "zone"},
}
OPTIONAL = sorted(set(FULL) - {"scheduling"})
MUTABLE: list[dict[str, Any]] = [
    {"suspend": True},
    {"scheduling": {"priorityClassName": "urgent"}},
    {"cleanup": {"podsAfter": "24h"}},
]


@pytest.fixture(scope="module")
def jobs(api: Any, manifest: Any, older_definition: Any) -> Iterator[tuple[str, str]]:
    """Names of a job with all optional fields, and of one with none."""
    full = manifest(JOB, {f"spec.{name}": value for name, value in FULL.items()}, name="edit-full")
    with older_definition():  # for the fields that are not supported yet
        for body in (full, manifest(JOB, name="edit-minimal")):
            answer = api.create(body, dry_run=False)
            assert answer.code == 201, answer.message
    yield "edit-full", "edit-minimal"
    for name in ("edit-full", "edit-minimal"):
        api.call("DELETE", api.path(JOB, name))


def refuses(api: Any, kind: str, name: str, spec: dict[str, Any], field: str, way_out: str) -> None:
    answer = api.merge(kind, name, {"spec": spec})
    assert answer.code == 422, answer.body
    assert f"spec.{field}: Forbidden: spec.{field} is immutable: {way_out}" in answer.message


def test_every_field_is_either_mutable_or_tried_here() -> None:
    names = {info.alias for info in FineTuneJobSpec.model_fields.values()}
    mutable = {"suspend", "scheduling", "cleanup"}
    assert names == {*CHANGED, *BLOCKS} | mutable
    assert names == {*IMMUTABLE} | mutable
    assert {info.alias for info in Scheduling.model_fields.values()} == {*SCHEDULING_CHANGED, "priorityClassName"}
    assert {info.alias for info in ModelVersionSpec.model_fields.values()} == {
        *RECORD,
        "approval",
        "deliveries",
        "evaluations",
        "deletionPolicy",
    }


@pytest.mark.parametrize("field", CHANGED)
def test_a_field_of_a_job_cannot_change(api: Any, jobs: Any, field: str) -> None:
    refuses(api, JOB, jobs[0], {field: CHANGED[field]}, field, "create a new FineTuneJob with another name")


@pytest.mark.parametrize("field", OPTIONAL)
def test_an_optional_field_of_a_job_cannot_go(api: Any, jobs: Any, field: str) -> None:
    refuses(api, JOB, jobs[0], {field: None}, field, "create a new FineTuneJob with another name")


@pytest.mark.parametrize("field", OPTIONAL)
def test_an_optional_field_of_a_job_cannot_come(api: Any, jobs: Any, field: str) -> None:
    refuses(api, JOB, jobs[1], {field: FULL[field]}, field, "create a new FineTuneJob with another name")


@pytest.mark.parametrize("block", BLOCKS)
def test_a_method_block_cannot_come(api: Any, jobs: Any, block: str) -> None:
    required = {
        "ppo": {"rewardModelVersion": "judge-v1"},
        "grpo": {"rewards": [{"type": "Number"}]},
        "distillation": {"teacherModelVersion": "teacher-v1"},
    }
    value = {"method": BLOCKS[block], block: required.get(block, {})}
    refuses(api, JOB, jobs[1], value, block, "create a new FineTuneJob")


@pytest.mark.parametrize("field", SCHEDULING_CHANGED)
def test_placement_cannot_change_come_or_go(api: Any, jobs: Any, field: str) -> None:
    full, minimal = jobs
    for name, value in ((full, SCHEDULING_CHANGED[field]), (full, None), (minimal, FULL["scheduling"][field])):
        refuses(api, JOB, name, {"scheduling": {field: value}}, f"scheduling.{field}", "create a new FineTuneJob")


def test_a_job_from_before_a_rule_of_several_fields_goes_on(api: Any, manifest: Any, older_definition: Any) -> None:
    """Its fields cannot change, so a job that breaks the rule cannot be repaired."""
    contradicts = manifest(JOB, {"spec.method": "DPO", "spec.sft": {"neftuneAlpha": "5"}}, name="edit-older")
    with older_definition():
        assert api.create(contradicts, dry_run=False).code == 201
    try:
        for change, sub in (({"status": {"phase": "Running"}}, "status"), ({"spec": {"suspend": True}}, "")):
            answer = api.merge(JOB, "edit-older", change, sub, dry_run=False)
            assert answer.code == 200, answer.message
        refuses(api, JOB, "edit-older", {"sft": None}, "sft", "create a new FineTuneJob")
    finally:
        api.call("DELETE", api.path(JOB, "edit-older"))
    answer = api.create(contradicts)
    assert answer.code == 422
    assert "spec.sft" in answer.message


@pytest.mark.parametrize("spec", MUTABLE, ids=str)
def test_suspend_priority_and_cleanup_can_change_and_go_back(api: Any, jobs: Any, spec: dict[str, Any]) -> None:
    before = api.call("GET", api.path(JOB, jobs[1])).body["spec"]
    assert api.merge(JOB, jobs[1], {"spec": spec}, dry_run=False).code == 200
    (field,) = spec
    after = api.call("GET", api.path(JOB, jobs[1])).body["spec"]
    assert after == before | spec
    assert api.merge(JOB, jobs[1], {"spec": {field: None}}, dry_run=False).code == 200
    assert api.call("GET", api.path(JOB, jobs[1])).body["spec"] == before


@pytest.mark.parametrize("meant", [{}, {"operator": "Exists", "value": ""}, {"effect": "NoExecute"}], ids=str)
def test_a_toleration_may_leave_out_the_operator_that_an_earlier_definition_filled_in(
    api: Any, manifest: Any, meant: dict[str, str]
) -> None:
    """An apply of the unchanged manifest replaces the whole list."""
    filled = {"key": "pool", "operator": "Equal", "value": "a"}
    assert (
        api.create(manifest(JOB, {"spec.scheduling.tolerations": [filled]}, "edit-filled"), dry_run=False).code == 201
    )
    try:
        spec = {"scheduling": {"tolerations": [{"key": "pool", "value": "a"} | meant]}}
        if meant:
            refuses(api, JOB, "edit-filled", spec, "scheduling.tolerations", "create a new FineTuneJob")
        else:
            answer = api.merge(JOB, "edit-filled", {"spec": spec})
            assert answer.code == 200, answer.message
    finally:
        api.call("DELETE", api.path(JOB, "edit-filled"))


RECORD: dict[str, Any] = {
    "modelName": "other",
    "version": 2,
    "artifacts": [{"format": "Adapter", "uri": "pvc://x/y", "digest": f"sha256:{'1' * 64}", "sizeBytes": 1}],
    "lineage": {"hyperParameters": {"training": {"seed": 7}}},
    "evaluation": {"numbers": [{"name": "loss", "tuned": "0.1"}]},
}


@pytest.fixture(scope="module")
def version(api: Any, manifest: Any) -> Iterator[str]:
    """Name of a ModelVersion."""
    answer = api.create(manifest(VERSION, name="edit-v1"), dry_run=False)
    assert answer.code == 201, answer.message
    yield "edit-v1"
    api.call("DELETE", api.path(VERSION, "edit-v1"))


@pytest.mark.parametrize("field", RECORD)
def test_a_record_cannot_change(api: Any, version: str, field: str) -> None:
    refuses(api, VERSION, version, {field: RECORD[field]}, field, "a ModelVersion is a record; only approval")


@pytest.mark.parametrize("state", ["Approved", "Rejected", "Candidate"])
def test_a_person_can_decide_on_a_model(api: Any, version: str, state: str) -> None:
    approval = {"state": state, "by": "ada", "comment": "better on our questions"}
    answer = api.merge(VERSION, version, {"spec": {"approval": approval}}, dry_run=False)
    assert answer.code == 200, answer.message
    assert answer.body["spec"]["approval"] == approval


def test_a_model_can_be_delivered_later(api: Any, version: str) -> None:
    deliveries = [{"uri": "pvc://share/models"}]
    answer = api.merge(VERSION, version, {"spec": {"deliveries": deliveries}}, dry_run=False)
    assert answer.code == 200, answer.message
    assert answer.body["spec"]["deliveries"] == deliveries


def test_a_model_can_be_measured_again_on_other_rows_by_several_managers(api: Any, version: str) -> None:
    for dataset in ("faq", "week"):
        entry = {"dataset": dataset, "against": "models://tutor@champion"}
        body = {"apiVersion": "hone.dev/v1alpha1", "kind": VERSION, "spec": {"evaluations": [entry]}}
        target = f"{api.path(VERSION, version)}&fieldManager={dataset}"
        answer = api.call("PATCH", target, {**body, "metadata": {"name": version}}, "application/apply-patch+yaml")
        assert answer.code == 200, answer.message
    assert [(e["dataset"], e["split"], e["maxRows"]) for e in answer.body["spec"]["evaluations"]] == [
        ("faq", "validation", 512),
        ("week", "validation", 512),
    ]
    for against in ("models://tutor:2", "tutor@champion", "hf://owner/name"):
        answer = api.merge(VERSION, version, {"spec": {"evaluations": [{"dataset": "faq", "against": against}]}})
        assert answer.code == 422
        assert "against is models://name@alias or the name of a ModelVersion, e.g. support-bot-v2" in answer.message


def test_a_dataset_can_be_fixed(api: Any, manifest: Any) -> None:
    """Another source is another revision; running jobs keep theirs."""
    assert api.create(manifest("Dataset", name="edit"), dry_run=False).code == 201
    answer = api.merge("Dataset", "edit", {"spec": {"source": {"uri": "pvc://data/mended.jsonl"}}}, dry_run=False)
    api.call("DELETE", api.path("Dataset", "edit"))
    assert answer.code == 200
    assert answer.body["metadata"]["generation"] == 2
