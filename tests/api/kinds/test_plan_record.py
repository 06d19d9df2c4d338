"""The plan in a ModelVersion: one document with its digest, the values that people look for, and earlier records."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from hone_api.kinds.model import Promotion
from hone_api.kinds.modelversion import Lineage, ModelVersionSpec
from hone_api.kinds.plan_record import MAX_TEXT, PlanRecord, StageSettings, values_of
from hone_api.verdicts.gates import InUse, verdict
from hone_api.verdicts.servable import verdicts

EARLIER = Path(__file__).parents[2] / "operator" / "objects_of_an_earlier_operator.json"
STAGE: dict[str, Any] = {"baseModel": {"uri": "hf://a/b"}, "datasets": [], "imported": None, "method": "SFT"}
STAGE |= {"job": {"name": "tutor", "uid": "1"}}
VALUES = {
    "adapter": {"type": "LoRA", "rank": 8},
    "training": {"batchSize": 8, "epochs": "1", "learningRate": "Auto"},
    "nodes": 2,
    "processesPerNode": 4,
    "resolved": {"learningRate": "0.0002", "maxLength": "512", "adapterRank": "16"},
}


def objects(node: Any) -> list[dict[str, Any]]:
    nested = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = [node] if isinstance(node, dict) and node.get("kind") == "ModelVersion" and "spec" in node else []
    return own + [each for child in nested for each in objects(child)]


@pytest.mark.pure
def test_a_plan_is_one_document_with_its_digest() -> None:
    record = PlanRecord.of(VALUES)
    assert record.text
    assert json.loads(record.text) == VALUES
    assert record.digest == f"sha256:{hashlib.sha256(record.text.encode()).hexdigest()}"
    lineage = Lineage.model_validate({**STAGE, "plan": record.to_json()})
    assert lineage.values == VALUES


@pytest.mark.pure
def test_settings_are_what_the_run_had() -> None:
    settings = StageSettings.of(VALUES).to_json()
    assert settings == {
        "adapterType": "LoRA",
        "adapterRank": 16,
        "learningRate": "0.0002",
        "batchSize": 8,
        "epochs": "1",
        "maxLength": 512,
        "nodes": 2,
        "ranksPerNode": 4,
    }


@pytest.mark.pure
def test_a_plan_that_is_too_long_keeps_its_digest_and_what_servers_ask_for() -> None:
    values = {**VALUES, "rewards": "x" * MAX_TEXT}
    values["training"] = {**values.get("training", {}), "thinking": "Disabled"}
    record = PlanRecord.of(values)
    assert record.text is None
    lineage = Lineage.model_validate(
        {**STAGE, "plan": record.to_json(), "settings": StageSettings.of(values).to_json()}
    )
    assert lineage.values == {"adapter": {"type": "LoRA", "rank": 16}, "training": {"thinking": "Disabled"}}


@pytest.mark.pure
@pytest.mark.parametrize("text", ["", "[" * 30_000, "[1]", "{", "null", '"x"', "NaN"])
def test_a_document_of_another_form_has_no_values(text: str) -> None:
    assert values_of({"plan": {"text": text}}) == {}


@pytest.mark.pure
def test_records_of_an_earlier_operator_have_their_values() -> None:
    found = objects(json.loads(EARLIER.read_text()))
    assert found
    for each in found:
        stage = each["spec"]["lineage"]
        assert Lineage.model_validate(stage).values == stage["hyperParameters"] != {}


@pytest.mark.apiserver
def test_the_server_keeps_the_values_of_an_earlier_record_and_lets_nobody_change_them(api: Any, manifest: Any) -> None:
    old = manifest("ModelVersion", name="old-v1")
    old["spec"]["lineage"]["hyperParameters"] = {"training": {"seed": 42, "future": {"deep": ["x"]}}}
    path = api.path("ModelVersion", "old-v1")
    assert api.create(old, dry_run=False).code == 201
    try:
        stored = api.call("GET", path).body["spec"]["lineage"]
        assert stored["hyperParameters"] == old["spec"]["lineage"]["hyperParameters"]
        for change in ({"training": {"seed": 7}}, {"training": {"future": {"deep": ["y"]}}}, None):
            answer = api.merge("ModelVersion", "old-v1", {"spec": {"lineage": {"hyperParameters": change}}})
            assert answer.code == 422, change
            assert "lineage is immutable" in answer.message
    finally:
        api.call("DELETE", path)


@pytest.mark.pure
@pytest.mark.parametrize(
    "text",
    [
        '{"evaluation": "x"}',
        '{"evaluation": {"against": 5}}',
        '{"evaluation": {"against": ["models://tutor@champion"]}}',
        '{"adapter": {"type": "LoRA", "rank": 1e999}}',
        '{"resolved": {"adapterRank": 1e999}, "training": {"thinking": ["Enabled"]}}',
        '{"adapter": "x", "training": 5, "resolved": []}',
    ],
)
def test_a_document_of_another_form_ends_no_decision(text: str) -> None:
    """Whoever may restore a ModelVersion writes it, and the API server does not look into it."""
    digest = f"sha256:{'0' * 64}"
    lineage = {**STAGE, "plan": {"version": "v", "digest": digest, "text": text}}
    numbers = {"against": "tutor-v1", "numbers": [{"name": "loss", "tuned": "1", "against": "2"}]}
    artifact = {"format": "Adapter", "uri": "pvc://store/x", "digest": digest, "sizeBytes": 1}
    spec = {"modelName": "tutor", "version": 2, "artifacts": [artifact], "lineage": lineage, "evaluation": numbers}
    gate = {"metric": "loss", "value": "Against", "atMost": "0"}
    promotion = Promotion.model_validate({"aliases": ["champion"], "gates": [gate]})
    assert verdict(promotion, {"spec": spec}, InUse(frozenset({"tutor-v0"}))).result == "Inconclusive"
    read = ModelVersionSpec.model_validate(spec)
    assert verdicts(read)[0].loads
    assert StageSettings.of(read.lineage.values).adapter_rank is None
