"""Numbers: an integer needs no quotes, a fraction does, and the words of a refusal lead to that."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from hone_api.base.meta import NUMBER
from hone_api.dataset.dataset import DatasetSpec
from hone_api.kinds.finetunejob import FineTuneJobSpec

JOB = "FineTuneJob"
KINDS = pytest.mark.parametrize("kind", [JOB, "Dataset"])
FRACTION = re.compile(r"(?:e\.g\.|or) -?\d+(?:\.\d|e-)")
"""An example that would be refused as it stands."""
IN_QUOTES = re.compile(r"'-?\d+(?:\.\d|e-)")
IN_GIBIBYTES = re.compile(r"\d[GM]i\b")


@pytest.mark.pure
@KINDS
def test_examples_with_a_fraction_are_in_quotes(kind: str, fields: Any) -> None:
    numbers = [f for f in fields(kind, "spec") if NUMBER in f.schema]
    assert numbers
    assert [f.path for f in numbers if FRACTION.search(f.schema["description"])] == []


@pytest.mark.pure
@pytest.mark.parametrize("kind", [JOB, "Dataset", "Model"])
def test_a_field_that_takes_a_fraction_shows_one_in_quotes(kind: str, fields: Any) -> None:
    """`kubectl explain` is where people look when the API server refuses `epochs: 0.5` in its own words."""
    numbers = [f for f in fields(kind, "spec") if NUMBER in f.schema and r"\." in f.schema.get("pattern", "")]
    without_unit = [f for f in numbers if not IN_GIBIBYTES.search(f.schema["description"])]
    assert without_unit
    assert [f.path for f in without_unit if not IN_QUOTES.search(f.schema["description"])] == []


@pytest.mark.pure
@pytest.mark.parametrize(
    ("written", "read"), [(3, "3"), ("3", "3"), (2e-4, "0.0002"), (1e-5, "1e-05"), ("2e-4", "2e-4")]
)
def test_a_plan_on_a_laptop_takes_every_number(manifest: Any, written: Any, read: str) -> None:
    spec = FineTuneJobSpec.model_validate(manifest(JOB, {"spec.training.learningRate": written})["spec"])
    assert spec.training.learning_rate == read


@pytest.mark.pure
@pytest.mark.parametrize("written", [True, float("nan"), -1, [], "fast"])
def test_what_is_not_a_number_is_also_refused_there(manifest: Any, written: Any) -> None:
    with pytest.raises(ValidationError):
        FineTuneJobSpec.model_validate(manifest(JOB, {"spec.training.learningRate": written})["spec"])


@pytest.mark.apiserver
@KINDS
def test_every_number_takes_an_integer_without_quotes(api: Any, kind: str, fields: Any, manifest: Any) -> None:
    """None is refused for its type; that 1 is out of a rule's bounds may be said."""
    for field in (f for f in fields(kind, "spec") if NUMBER in f.schema):
        answer = api.create(manifest(kind, {field.path.replace("{}", ""): 1}))
        assert "must be of type" not in answer.message, field.path


@pytest.mark.apiserver
@pytest.mark.parametrize(
    "changes",
    [
        {"spec.training.epochs": 3},
        {"spec.training": {"weightDecay": 0, "maxGradNorm": 1}},
        {"spec.resources": {"cpu": 8, "memory": 8589934592}},
        {"spec.method": "GRPO", "spec.grpo": {"rewards": [{"type": "Number", "weight": -1}], "beta": 0}},
    ],
    ids=str,
)
def test_an_integer_is_taken_and_read(api: Any, manifest: Any, changes: dict[str, Any]) -> None:
    answer = api.create(manifest(JOB, changes))
    assert answer.code == 201, answer.message
    FineTuneJobSpec.model_validate(answer.body["spec"])


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("epochs", 0, "above 0 and at most 1000, e.g. '3'"),
        ("epochs", 1001, "above 0 and at most 1000, e.g. '3'"),
        ("learningRate", 3, "above 0 and at most 1, e.g. '2e-4'"),
        ("epochs", -1, "greater than or equal to 0"),
        ("learningRate", 2e-4, 'must be of type integer,string: "number"'),
        ("learningRate", "raw:1.0", "either a string or integer evaluating rule: learningRate must be above 0"),
        ("epochs", True, 'must be of type integer,string: "boolean"'),
    ],
)
def test_what_is_out_of_bounds_or_not_quoted_is_refused(
    api: Any, manifest: Any, field: str, value: Any, words: str
) -> None:
    answer = api.create(manifest(JOB, {f"spec.training.{field}": value}))
    assert answer.code == 422
    assert f"spec.training.{field}" in answer.message or value == "raw:1.0"
    assert words in answer.message


@pytest.mark.apiserver
def test_small_quantities_are_also_refused_as_integers(api: Any, manifest: Any) -> None:
    answer = api.create(manifest(JOB, {"spec.resources": {"cpu": 0, "memory": 5}}))
    assert {"spec.resources.cpu", "spec.resources.memory"} <= {field for field, _ in answer.causes}


@pytest.mark.pure
def test_a_dataset_reads_integers(manifest: Any) -> None:
    synthesis = {
        "template": "Paraphrase",
        "endpoint": "https://m.example/v1",
        "model": "m",
        "rows": 3,
        "temperature": 1,
    }
    spec = DatasetSpec.model_validate(manifest("Dataset", {"spec.synthesis": synthesis})["spec"])
    assert spec.synthesis is not None
    assert spec.synthesis.temperature == "1"
