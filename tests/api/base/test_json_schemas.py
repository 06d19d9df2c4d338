"""JSON Schemas of rewards that would make somebody fetch are refused before a pod is made for them."""

from __future__ import annotations

import json

import pytest

from hone_api.base.json_schemas import problem
from hone_api.blocks.evaluation import Evaluation
from hone_api.blocks.training import Adapter
from hone_api.combinations.evaluation import evaluation_problems

pytestmark = pytest.mark.pure

HOSTILE = {
    "http": {"$ref": "http://169.254.169.254/latest/meta-data/iam/security-credentials/role#/nope"},
    "https": {"$ref": "https://example.com/schema.json"},
    "ftp": {"$ref": "ftp://127.0.0.1/schema.json"},
    "a file": {"$ref": "file:///etc/kubernetes/admin.json#/nope"},
    "a data address": {"$ref": "data:application/json,{}"},
    "a relative one": {"$id": "http://127.0.0.1/", "$ref": "schema.json"},
    "a network path": {"$ref": "//127.0.0.1/schema.json"},
    "by an escape": '{"\\u0024ref": "http://127.0.0.1/"}',
    "deep inside": {"properties": {"a": {"items": [{"anyOf": [{"$ref": "http://127.0.0.1/"}]}]}}},
    "in definitions": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "http://127.0.0.1/"}}},
    "dynamic": {"$dynamicRef": "http://127.0.0.1/#node"},
    "recursive": {"$recursiveRef": "http://127.0.0.1/"},
    "nested too deep": "[" * 8000 + "]" * 8000,
}


@pytest.mark.attack("JSON Schema rewards")
@pytest.mark.parametrize("what", HOSTILE)
def test_a_reference_out_of_a_schema_is_refused(what: str) -> None:
    schema = HOSTILE[what]
    text = schema if isinstance(schema, str) else json.dumps(schema)
    reward = {"type": "JsonSchema", "jsonSchema": {"schema": text}}
    found = evaluation_problems("SFT", Evaluation.model_validate({"rewards": [reward]}), Adapter(), sharded=False)
    assert len(found) == 1
    assert "jsonSchema.schema of jsonschema" in found[0]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        True,
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
        {"$ref": "#"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/mine"},
        {"properties": {"$ref": {"type": "string"}}},
    ],
)
def test_a_schema_that_is_complete_is_taken(schema: object) -> None:
    assert problem(json.dumps(schema)) is None
