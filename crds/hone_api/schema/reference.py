"""Pages of the reference as Markdown: the API, from the same schema as the CRDs, and the words of a status."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hone_api import GROUP, VERSION
from hone_api.base.meta import NUMBER, Kind
from hone_api.base.rule import VALIDATIONS
from hone_api.schema.schema import crd
from hone_api.words.states import (
    CONDITIONS_OF,
    ApprovalState,
    AttemptOutcome,
    DatasetPhase,
    DeliveryState,
    GateResult,
    ImportState,
    JobPhase,
    MeasurementState,
    Reason,
    State,
)


def reference(kinds: Sequence[Kind]) -> str:
    """The page of the group, which leads to one page for each kind."""
    lines = [
        "# API reference",
        "",
        "<!-- Generated from crds/hone_api by `make crds`. Do not edit. -->",
        "",
        f"Group `{GROUP}`, version `{VERSION}`. The same text is in `kubectl explain`.",
        "",
        "Write a number with a fraction or an exponent in quotes: `learningRate: '2e-4'`, `epochs: '0.5'`. "
        'Without quotes the API server says `must be of type integer,string: "number"`. '
        "Integers need none: `epochs: 3`.",
    ]
    lines += ["", "| Kind | Short name | What it is |", "| --- | --- | --- |"]
    for kind in kinds:
        text = _schema(kind)["description"]
        lines.append(f"| [{kind.kind}]({kind.singular}.md) | `{kind.short_name}` | {_escape(text)} |")
    return "\n".join(lines) + "\n"


def kind_page(kind: Kind) -> str:
    """The page of one kind: every field of its spec and status."""
    schema = _schema(kind)
    lines = [
        f"# {kind.kind}",
        "",
        "<!-- Generated from crds/hone_api by `make crds`. Do not edit. -->",
        "",
        f"`kubectl get {kind.short_name}`. {schema['description']}",
    ]
    for part in ("spec", "status"):
        lines += _tables(part, schema["properties"][part])
    return "\n".join(lines) + "\n"


def _schema(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def conditions() -> str:
    """The page of condition types, reasons, phases and outcomes."""
    lines = [
        "# Conditions, reasons and phases",
        "",
        "<!-- Generated from crds/hone_api by `make crds`. Do not edit. -->",
        "",
        "`kubectl describe` shows them. Scripts should wait for conditions: phases are for display only.",
    ]
    for kind, types in CONDITIONS_OF.items():
        lines += _words(f"Conditions of a {kind}", "Condition", "True when", types)
    lines += _words("Reasons", "Reason", "Meaning", Reason)
    lines += ["", "A reason can also be a [failure code](../guides/troubleshooting.md#codes), or a word of Kubernetes."]
    lines += _words("Phases of a FineTuneJob", "Phase", "Meaning", JobPhase)
    lines += _words("Phases of a Dataset", "Phase", "Meaning", DatasetPhase)
    lines += _words("Outcomes of an attempt", "Outcome", "Meaning", AttemptOutcome)
    lines += _words("Results of a gate of a Model", "Result", "Meaning", GateResult)
    lines += _words("States of approval", "State", "Meaning", ApprovalState)
    lines += _words("States of a delivery", "State", "Meaning", DeliveryState)
    lines += _words("States of an evaluation", "State", "Meaning", MeasurementState)
    lines += _words("States of an import", "State", "Meaning", ImportState)
    return "\n".join(lines) + "\n"


def _words(title: str, word: str, meaning: str, states: Iterable[State]) -> Iterator[str]:
    yield from ("", f"## {title}", "", f"| {word} | {meaning} |", "| --- | --- |")
    for state in states:
        yield f"| `{state}` | {_escape(state.when)} |"


def _tables(path: str, schema: dict[str, Any]) -> Iterator[str]:
    properties = schema.get("properties", {})
    if not any("description" in child for child in properties.values()):
        return  # a scalar, or a shape whose fields are described elsewhere
    yield from ("", f"## {path}", "", "| field | type | default | description |", "| --- | --- | --- | --- |")
    required = set(schema.get("required", ()))
    for name, child in properties.items():
        default = f"`{json.dumps(child['default'], ensure_ascii=False)}`" if "default" in child else ""
        default = "required" if name in required else default
        yield f"| `{name}` | {_type(child)} | {default} | {_escape(child.get('description', ''))} |"
    for rule in _rules(schema):
        if "oldSelf" not in rule["rule"] or "optionalOldSelf" in rule:
            yield from ("", f"Rule: {rule['message']}.")
    for name, child in properties.items():
        target = child.get("items", child)
        yield from _tables(f"{path}.{name}" + ("[]" if "items" in child else ""), target)


def _rules(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rules of an object, and those of its fields that are not objects."""
    yield from schema.get(VALIDATIONS, ())
    for child in schema.get("properties", {}).values():
        if "properties" not in child:
            yield from child.get(VALIDATIONS, ())


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if NUMBER in schema:
        return "integer, or string"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    bounds = [f"{schema[k]}" for k in ("minimum", "maximum") if k in schema]
    return f"{schema['type']} {' to '.join(bounds)}" if len(bounds) == 2 else str(schema["type"])


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
