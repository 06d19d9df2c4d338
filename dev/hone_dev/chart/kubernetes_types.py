"""Schemas of types of Kubernetes, from those that kubernetes-validate has of the newest version."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from hone_dev.chart.value_types import KUBERNETES

_DROPPED = {"$id", "$schema", "description", "format"}


@cache
def _definitions() -> dict[str, Any]:
    import kubernetes_validate

    folder = Path(kubernetes_validate.__file__).with_name("kubernetes-json-schema")
    versions = folder.glob("v*-local-strict")
    newest = max(versions, key=lambda each: [int(part) for part in each.name[1:].partition("-")[0].split(".")])
    definitions: dict[str, Any] = json.loads((newest / "_definitions.json").read_text())["$defs"]
    return definitions


def resolved(node: Any, known: dict[str, Any]) -> Any:
    """The schema with a reference for each type of Kubernetes that it names; the types are added to `known`."""
    if isinstance(node, list):
        return [resolved(each, known) for each in node]
    if not isinstance(node, dict):
        return node
    if name := node.get(KUBERNETES):
        if name not in known:
            known[name] = {}  # a type may contain itself
            known[name] |= _plain(_definitions()[name], known)
        return {**{key: value for key, value in node.items() if key != KUBERNETES}, "$ref": f"#/$defs/{name}"}
    return {key: resolved(value, known) for key, value in node.items()}


def _plain(node: Any, known: dict[str, Any]) -> Any:
    """Without documentation, and without null: a value that is null is absent."""
    if isinstance(node, list):
        return [_plain(each, known) for each in node]
    if not isinstance(node, dict):
        return node
    if isinstance(reference := node.get("$ref"), str):
        return resolved({KUBERNETES: reference.rpartition("/")[2]}, known)
    out = {
        key: _plain(value, known)
        for key, value in node.items()
        if not (key in _DROPPED and isinstance(value, str)) and not key.startswith("x-kubernetes-")
    }
    if isinstance(types := out.get("type"), list):
        kept = [each for each in types if each != "null"]
        out["type"] = kept[0] if len(kept) == 1 else kept
    return out
