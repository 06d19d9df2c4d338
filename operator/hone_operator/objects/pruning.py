"""Prunes objects to the fields that this version knows, and lists the others.

The API server prunes by its own definition, which may be from an older or newer version than this operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import intern
from typing import Any

from hone_api.base.meta import Kind
from hone_api.dataset.dataset import DATASET
from hone_api.kinds.finetunejob import FINE_TUNE_JOB
from hone_api.kinds.model import MODEL
from hone_api.kinds.modelversion import MODEL_VERSION
from hone_api.schema.schema import structural
from hone_operator.objects.sharing import shared
from hone_operator.times import read_time

UNKNOWN = "unknownFields"
"""Metadata key of a cached object with the fields of its spec that this version does not know."""
MAX_NAMED = 16
MAX_PATH = 200

KINDS: tuple[Kind, ...] = (FINE_TUNE_JOB, DATASET, MODEL_VERSION, MODEL)
SPECS = {kind.kind: structural(kind.spec) for kind in KINDS}
STATUSES = {kind.kind: structural(kind.status) for kind in KINDS}


def known_spec(kind: str, spec: Any) -> tuple[Any, list[str]]:
    """The spec without unknown fields, and the paths of at most `MAX_NAMED` of them, e.g. `spec.training.future`."""
    unknown: dict[str, None] = {}
    kept = _prune(SPECS[kind], spec, "spec", unknown)
    return kept, list(unknown)


def known_status(kind: str, status: Any) -> dict[str, Any]:
    """The status without unknown fields; empty if it is not an object."""
    kept = _prune(STATUSES[kind], status, "status", {})
    return kept if isinstance(kept, dict) else {}


TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def _fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether a value has the type of its field and, for a time, can be parsed.

    Other values are treated as absent: another definition accepted them, or somebody else wrote them.
    """
    if schema.get("format") == "date-time" and isinstance(value, str):
        return read_time(value) is not None
    type_ = schema.get("type", "")
    if isinstance(value, bool):
        return type_ in ("boolean", "")
    return isinstance(value, TYPES.get(type_, object))


def _prune(schema: Mapping[str, Any], value: Any, path: str, unknown: dict[str, None]) -> Any:
    """The part of `value` that `schema` describes: at most as deep, so that later code cannot recurse without end."""
    if isinstance(value, dict):
        fields, values = schema.get("properties"), schema.get("additionalProperties")
        if fields is not None:
            return _prune_fields(fields, value, path, unknown)
        if isinstance(values, dict):
            return {shared(k): _prune(values, v, f"{path}.{k}", unknown) for k, v in value.items()}
        return {}
    if isinstance(value, list):
        items = schema.get("items")
        return [_prune(items, v, f"{path}[]", unknown) for v in value] if items else []
    return shared(value) if isinstance(value, str) else value


def _prune_fields(
    fields: Mapping[str, Mapping[str, Any]], value: Mapping[str, Any], path: str, unknown: dict[str, None]
) -> dict[str, Any]:
    """The fields that a schema names. By far the most values are texts and numbers: they need no call of their own."""
    kept: dict[str, Any] = {}
    for name, inner in value.items():
        field = fields.get(name)
        if field is None or not _fits(field, inner):
            if len(unknown) < MAX_NAMED:
                unknown[f"{path}.{name}"[:MAX_PATH]] = None
        elif isinstance(inner, str):
            kept[intern(name)] = shared(inner)
        elif isinstance(inner, (dict, list)):
            kept[intern(name)] = _prune(field, inner, f"{path}.{name}", unknown)
        else:
            kept[intern(name)] = inner
    return kept
