"""What people read about a spec that cannot be parsed: the place, plain words, the nearest name that there is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from hone_api.base.reading import in_words, only_unknown
from hone_api.dataset.dataset import DatasetSpec
from hone_api.kinds.finetunejob import FineTuneJobSpec

pytestmark = pytest.mark.pure
JOB: dict[str, Any] = {"model": {"uri": "hf://a/b"}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}}
DATA: dict[str, Any] = {"source": {"uri": "pvc://data/rows.jsonl"}}


@pytest.mark.parametrize(
    ("model", "place", "nearest"),
    [
        (DatasetSpec, "colums", "columns"),
        (DatasetSpec, "splits.validaton", "validation"),
        (FineTuneJobSpec, "training.learningrate", "learningRate"),
        (FineTuneJobSpec, "datasets.0.shares", "share"),
        (FineTuneJobSpec, "zzz", None),
    ],
)
def test_an_unknown_field_is_reported_with_the_nearest_name(
    model: type[BaseModel], place: str, nearest: str | None
) -> None:
    spec: dict[str, Any] = copy.deepcopy(JOB if model is FineTuneJobSpec else DATA)
    *parent, name = place.split(".")
    node: Any = spec
    for step in parent:
        node = node[int(step)] if step.isdigit() else node.setdefault(step, {})
    node[name] = "1"
    with pytest.raises(ValidationError) as caught:
        model.model_validate(spec)
    way_out = f", did you mean {nearest}?" if nearest else ""
    assert in_words(caught.value, model) == [f"{place}: unknown field{way_out}"]
    assert only_unknown(caught.value)


def test_a_wrong_value_is_reported_without_pydantics_words_and_without_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        FineTuneJobSpec.model_validate({**JOB, "model": {"uri": "gopher://private-host"}, "zzz": 1})
    told = in_words(caught.value, FineTuneJobSpec)
    assert told[0].startswith("model.uri: a base model is hf://owner/name")
    assert "private-host" not in " ".join(told)
    assert not only_unknown(caught.value)
