"""Every bound of every field, taken from the definitions, held by the API server."""

from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.apiserver

KINDS = ("FineTuneJob", "Dataset", "ModelVersion", "Model")
VIOLATING = "\x01 not this\n"


def wrong_values(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(what is wrong, value) for each bound of a field."""
    match schema.get("type"):
        case None:
            assert schema["x-kubernetes-int-or-string"]
            yield "type", True
            yield "maxLength", "a" * (schema["maxLength"] + 1)
        case "integer":
            yield "type", "one"
            yield "type", 1.5
            if "minimum" in schema:
                yield "minimum", schema["minimum"] - 1
            if "maximum" in schema:
                yield "maximum", schema["maximum"] + 1
        case "boolean":
            yield "type", "yes"
        case "string":
            yield "type", 5
            if "enum" in schema:
                yield "enum", "no-such-value"
            elif "pattern" in schema:
                yield "pattern", VIOLATING
            elif "format" in schema:
                yield "format", "yesterday"
            if "maxLength" in schema and "enum" not in schema:
                yield "maxLength", "a" * (schema["maxLength"] + 1)
            if schema.get("minLength"):
                yield "minLength", ""
        case "array":
            yield "type", "a"
            yield "maxItems", [None] * (schema["maxItems"] + 1)
            if "minItems" in schema:
                yield "minItems", [None] * (schema["minItems"] - 1)
        case "object":
            yield "type", "a"
            if "maxProperties" in schema:
                yield "maxProperties", {f"k{i}": "v" for i in range(schema["maxProperties"] + 1)}


def right_values(schema: dict[str, Any]) -> Iterator[Any]:
    """Values on the bounds."""
    yield from schema.get("enum", ())
    type_ = schema.get("type", "string")  # without: a number or a string
    if type_ == "integer":
        yield from (schema[bound] for bound in ("minimum", "maximum") if bound in schema)
    if type_ == "string" and not {"enum", "pattern", "format"} & set(schema):
        yield "a" * schema["maxLength"]


def errors_at(answer: Any, path: str) -> list[str]:
    """Messages of the schema about a field; rules over several fields are another matter."""
    field = path.replace("[]", "[0]").replace("{}", ".key")
    return [m for f, m in answer.causes if f == field and m.startswith(("Invalid", "Unsupported", "Too"))]


@pytest.mark.parametrize("kind", KINDS)
def test_spec_is_bounded(api: Any, manifest: Any, fields: Any, kind: str) -> None:
    checked, missed = 0, []
    for field in fields(kind, "spec"):
        for what, value in wrong_values(field.schema):
            answer = api.create(manifest(kind, {field.path: value}))
            checked += 1
            if answer.code != 422 or not errors_at(answer, field.path):
                missed.append((field.path, what, answer.code, answer.message[:200]))
    assert not missed
    assert checked > len(fields(kind, "spec"))


@pytest.mark.parametrize("kind", KINDS)
def test_spec_takes_values_on_its_bounds(api: Any, manifest: Any, fields: Any, kind: str) -> None:
    missed = []
    for field in fields(kind, "spec"):
        for value in right_values(field.schema):
            answer = api.create(manifest(kind, {field.path: value}))
            missed += [(field.path, value, m) for m in errors_at(answer, field.path) if not is_rule(m)]
    assert not missed


def is_rule(message: str) -> bool:
    """CEL rules put a whole object before their words; a bound puts the value and `in body`."""
    return "in body" not in message and "Too" not in message


@pytest.fixture
def kept(api: Any, manifest: Any, kind: str) -> Iterator[str]:
    """Name of an object that is there for a test: others of this API server count what there is."""
    assert api.create(manifest(kind, name="bounds"), dry_run=False).code == 201
    yield "bounds"
    assert api.call("DELETE", api.path(kind, "bounds")).code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_status_is_bounded(api: Any, manifest: Any, fields: Any, kind: str, kept: str) -> None:
    missed = []
    for field in fields(kind, "status"):
        for what, value in wrong_values(field.schema):
            body = manifest(kind, {field.path: value}, name=kept)
            answer = api.merge(kind, kept, {"status": body["status"]}, "status")
            if answer.code != 422 or not errors_at(answer, field.path):
                missed.append((field.path, what, answer.code, answer.message[:200]))
    assert not missed


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_those_of_the_models(api: Any, manifest: Any, specs: Any, kind: str) -> None:
    body = manifest(kind)
    answer = api.create(body)
    assert answer.body["spec"] == specs[kind].model_validate(body["spec"]).to_json()
    assert "status" not in answer.body


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Model"])  # none of its blocks may be empty
def test_an_empty_block_gets_the_defaults_of_its_model(
    api: Any, manifest: Any, fields: Any, specs: Any, kind: str
) -> None:
    blocks = [f.path for f in fields(kind, "spec") if f.schema.get("properties") and f.path != "spec"]
    taken = []
    for path in blocks:
        body = manifest(kind, {path: {}})
        answer = api.create(body)
        if answer.code == 201:
            taken.append(path)
            assert answer.body["spec"] == specs[kind].model_validate(body["spec"]).to_json(), path
        else:
            assert answer.causes, (path, answer.body)
    assert taken


def test_every_default_of_a_job_is_in_its_definition(api: Any, manifest: Any) -> None:
    """What people rely on without writing it."""
    spec = api.create(manifest("FineTuneJob")).body["spec"]
    assert (spec["method"], spec["adapter"], spec["suspend"]) == (
        "SFT",
        {"type": "LoRA", "rankStabilized": False},
        False,
    )
    assert spec["datasets"] == [{"name": "rows", "split": "train"}]
    assert spec["training"]["batchSize"] == 8
    assert spec["resources"] == {
        "nodes": 1,
        "gpusPerNode": 0,
        "gpuResourceName": "nvidia.com/gpu",
        "gpusFrom": "ExtendedResource",
        "cpu": "2",
        "memory": "8Gi",
    }
    assert spec["output"] == {
        "modelName": "tutor",
        "merge": False,
        "formats": ["Safetensors"],
        "ggufPrecision": "Float16",
    }
