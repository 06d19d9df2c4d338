"""The bounded schema of a ModelVersion's hyperParameters: the shape of a training plan.

It has no rules and patterns: a record from an older or newer version must stay valid. Its content was checked when the
run was accepted.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import WithJsonSchema

from hone_api.meta import MAX_COUNT, NUMBER
from hone_api.plan import TrainingPlan
from hone_api.schema import structural

PLACES = frozenset(
    {
        "release",
        "modelPath",
        "modelLicense",
        "modelAdapter",
        "modelTrusted",
        "models",
        "workPath",
        "outputPath",
        "exportFolder",
        "masterAddress",
        "metricsPort",
        "tracking",
        "comparedWith",
        "comparedModel",
        "failureInterval",
        "learningRateHalvings",
        "hangTimeout",
        "microBatchLimit",
    }
)
"""Fields of a plan that say where and with which release a run happened, not what it was."""
MAX_TEXT, MAX_ENTRIES = 4096, 128


def plan_shape() -> dict[str, Any]:
    """Types and sizes of a TrainingPlan without its paths, and of `resolved`: the trainer's choices."""
    fields = {k: _shape(v) for k, v in structural(TrainingPlan)["properties"].items() if k not in PLACES}
    chosen = {NUMBER: True, "maxLength": MAX_TEXT}
    fields["resolved"] = {"type": "object", "maxProperties": MAX_ENTRIES, "additionalProperties": chosen}
    return {"type": "object", "properties": fields}


def _shape(schema: dict[str, Any]) -> dict[str, Any]:
    if NUMBER in schema and not re.search(schema["pattern"], "1"):  # a number, or a word in its place
        return {NUMBER: True, "maxLength": schema["maxLength"]}
    out: dict[str, Any] = {"type": schema.get("type", "string")}  # a plan holds the text of other numbers
    if "properties" in schema:
        out["properties"] = {name: _shape(child) for name, child in schema["properties"].items()}
    elif out["type"] == "object":
        out["maxProperties"] = schema.get("maxProperties", MAX_ENTRIES)
        out["additionalProperties"] = _shape(schema["additionalProperties"])
    elif out["type"] == "array":
        out |= {"maxItems": schema.get("maxItems", MAX_ENTRIES), "items": _shape(schema["items"])}
    elif out["type"] == "string":
        out["maxLength"] = schema.get("maxLength", MAX_TEXT)
    elif out["type"] == "integer":
        out |= {"minimum": -MAX_COUNT, "maximum": MAX_COUNT}
    return out


HyperParameters = Annotated[dict[str, Any], WithJsonSchema(plan_shape())]
"""Read unchanged; the API server keeps the fields that the schema has."""
