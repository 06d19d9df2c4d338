"""What is not supported yet: the API server refuses it in new objects, by name, and lets older objects go on."""

from collections.abc import Iterator
from typing import Any

import pytest

from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.unsupported import UNSUPPORTED, Unsupported, asked_for

ASKED: dict[str, dict[str, Any]] = {
    "spec.output.version": {"spec.output.version": 3},
    "spec.deepspeed.offload NVMe": {"spec.deepspeed": {"zeroStage": 3, "offload": "NVMe"}},
    "spec.model.uri with s3:// or https://": {"spec.model.uri": "s3://bucket/model"},
}
"""A manifest's changes that ask for each entry of the table."""
NOT_ASKED: tuple[dict[str, Any], ...] = (
    {"spec.tracking": []},
    *({"spec.tracking": [{"type": type_, "experiment": "faq"}]} for type_ in ("TensorBoard", "Trackio", "WandB")),
    {"spec.tracking": [{"type": "MLflow", "uri": "https://mlflow.example.org", "experiment": "faq"}]},
    {"spec.deepspeed": {"offload": "None"}},
    {"spec.deepspeed": {"zeroStage": 3, "offload": "OptimizerAndParameters"}},
    {"spec.scheduling": {"priorityClassName": "urgent", "queueName": "team", "topology": {"required": "rack"}}},
    {"spec.model.uri": "pvc://models/base"},
    {"spec.model.uri": "oci://registry.example.org/model@sha256:" + "0" * 64},
    {"spec.output.push": [{"uri": "oci://registry.example.org/team/model", "secretName": "hone-registry"}]},
    {"spec.method": "PPO", "spec.ppo": {"rewardModelVersion": "judge-v1"}, "spec.deepspeed": {"zeroStage": 3}},
)
ENTRIES = pytest.mark.parametrize("entry", UNSUPPORTED, ids=lambda e: e.what)


@pytest.mark.pure
def test_every_entry_is_tried_here() -> None:
    assert {e.what for e in UNSUPPORTED} == set(ASKED)


@pytest.mark.pure
@ENTRIES
def test_the_operator_sees_what_the_api_server_refuses(manifest: Any, entry: Unsupported) -> None:
    asked = manifest("FineTuneJob", ASKED[entry.what])["spec"]
    assert asked_for(FineTuneJobSpec.model_validate(asked)) == [entry]


@pytest.mark.pure
@pytest.mark.parametrize("changes", NOT_ASKED, ids=str)
def test_the_operator_runs_what_asks_for_nothing_of_it(manifest: Any, changes: Any) -> None:
    assert asked_for(FineTuneJobSpec.model_validate(manifest("FineTuneJob", changes)["spec"])) == []


@pytest.mark.pure
def test_the_description_of_each_field_begins_with_it(fields: Any) -> None:
    marked = {
        f.path
        for f in fields("FineTuneJob", "spec")
        if f.schema.get("description", "").startswith("Not supported yet: ")
    }
    assert marked == {f"spec.{e.path}" for e in UNSUPPORTED if e.whole}


@pytest.mark.apiserver
@ENTRIES
def test_a_new_object_is_refused_with_the_way_out(api: Any, manifest: Any, entry: Unsupported) -> None:
    answer = api.create(manifest("FineTuneJob", ASKED[entry.what]))
    assert answer.code == 422, answer.body
    assert [c for c in answer.causes if "not supported yet" in c[1]] == [
        (f"spec.{entry.path}", f"Forbidden: {entry.message}")
    ]


@pytest.mark.apiserver
@pytest.mark.parametrize("changes", NOT_ASKED, ids=str)
def test_what_asks_for_nothing_of_it_is_taken(api: Any, manifest: Any, changes: Any) -> None:
    answer = api.create(manifest("FineTuneJob", changes))
    assert answer.code == 201, answer.message


@pytest.fixture(params=UNSUPPORTED, ids=lambda e: e.what)
def stored_before(request: Any, api: Any, manifest: Any, older_definition: Any) -> Iterator[str]:
    """The name of an object that asks for it, stored under a definition that did not refuse it."""
    name = f"older-{UNSUPPORTED.index(request.param)}"
    with older_definition():
        answer = api.create(manifest("FineTuneJob", ASKED[request.param.what], name=name), dry_run=False)
        assert answer.code == 201, answer.message
    yield name
    api.call("DELETE", api.path("FineTuneJob", name))


@pytest.mark.apiserver
def test_an_older_object_goes_on(api: Any, stored_before: str) -> None:
    status = {"phase": "Running", "progress": {"step": 7}}
    for change, sub in (({"status": status}, "status"), ({"spec": {"suspend": True}}, "")):
        answer = api.merge("FineTuneJob", stored_before, change, sub, dry_run=False)
        assert answer.code == 200, answer.message
    kept = api.call("GET", api.path("FineTuneJob", stored_before)).body
    assert kept["status"]["progress"] == {"step": 7}
    assert kept["spec"]["suspend"] is True
