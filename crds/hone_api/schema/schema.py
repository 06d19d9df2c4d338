"""From pydantic models to CustomResourceDefinitions; the only place that knows what a structural schema allows.

Source: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions", structural schemas.
"""

from __future__ import annotations

from typing import Any

from hone_api import GROUP, VERSION
from hone_api.base.meta import LIST_TYPE, NUMBER, ApiModel, Kind
from hone_api.base.rule import VALIDATIONS

MAX_CRD_BYTES = 200_000
"""Size of a definition as compact JSON: client-side apply copies it into an annotation, and all annotations together
may have 256 KiB."""
NOT_SUPPORTED = "Not supported yet: "
QUOTE = " Quote a fraction or an exponent."
"""Otherwise the API server refuses it, and its message does not say that quotes are missing."""


def crd(kind: Kind) -> dict[str, Any]:
    """The apiextensions.k8s.io/v1 manifest of one kind."""
    schema: dict[str, Any] = {
        "type": "object",
        "description": _text(kind.spec),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"Always {kind.kind}."},
            "metadata": {"type": "object"},
            "spec": structural(kind.spec),
            "status": _with_whole_lists(_without_defaults(structural(kind.status))),
        },
    }
    if kind.empty:
        # Server-side apply of `spec: {}` after the last field was taken out sends null, which only a default replaces.
        schema["properties"]["spec"]["default"] = {}
    for path in kind.not_supported:
        _mark_unsupported(schema["properties"]["spec"], path)
    if kind.rules:
        schema[VALIDATIONS] = [rule.to_json() for rule in kind.rules]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        **({"selectableFields": [{"jsonPath": path} for path in kind.selectable]} if kind.selectable else {}),
        "additionalPrinterColumns": [
            {"name": c.name, "type": c.type, "jsonPath": c.json_path} | ({"priority": c.priority} if c.priority else {})
            for c in kind.columns
        ],
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            # Client-side apply would copy the whole manifest into an annotation.
            "annotations": {"argocd.argoproj.io/sync-options": "ServerSideApply=true"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short_name],
                "categories": ["hone"],
            },
            "versions": [version],
        },
    }


def structural(model: type[ApiModel]) -> dict[str, Any]:
    """The structural OpenAPI v3 schema of a model, with camelCase names, defaults and CEL rules.

    A list of values is a set. A list of objects is a map if its entries have keys (`meta.keyed_by`), and otherwise
    belongs to one manager as a whole.
    """
    source = model.model_json_schema(by_alias=True)
    return _convert(source, source.get("$defs", {}))


def _convert(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    node = _resolve(node, definitions)
    out = {k: v for k, v in node.items() if k not in {"title", "$defs", "properties", "items", "anyOf"}}
    if out.get("default", 0) is None:
        del out["default"]
    if NUMBER in out:  # an integer or a string; a fraction without quotes is refused, whatever the schema says
        out.pop("type", None)
        if "description" in out and r"\." in out.get("pattern", ""):
            out["description"] += QUOTE
    if "const" in out:
        out["enum"] = [out.pop("const")]
    if "properties" in node:
        out["properties"] = {name: _convert(child, definitions) for name, child in node["properties"].items()}
    if "items" in node:
        out["items"] = _convert(node["items"], definitions)
        out.setdefault(LIST_TYPE, "atomic" if out["items"].get("type") == "object" else "set")
    values = out.pop("additionalProperties", None)
    if isinstance(values, dict):
        out["additionalProperties"] = _convert(values, definitions)
    return out


def _resolve(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Resolve a reference or an optional type; keywords next to it take precedence; rules of both are kept."""
    options = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
    if options:
        (option,) = options  # a union of two types is not structural
        node = {**option, **{k: v for k, v in node.items() if k != "anyOf"}}
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        rules = [*node.get(VALIDATIONS, ()), *target.get(VALIDATIONS, ())]
        node = {**target, **{k: v for k, v in node.items() if k != "$ref"}, **({VALIDATIONS: rules} if rules else {})}
        return _resolve(node, definitions)
    return node


def _without_defaults(node: Any) -> Any:
    """Remove defaults: they are for user input, and the API server must not invent a status."""
    if isinstance(node, dict):
        # A property may itself be called default; then its value is a schema, not a value.
        return {
            k: _without_defaults(v) for k, v in node.items() if k != "default" or (isinstance(v, dict) and "type" in v)
        }
    return [_without_defaults(item) for item in node] if isinstance(node, list) else node


def _with_whole_lists(node: Any) -> Any:
    """Let every list without keys belong to the operator as a whole: in a status, the values of a list may repeat."""
    if isinstance(node, dict):
        lists = {LIST_TYPE: "atomic"} if node.get(LIST_TYPE) == "set" else {}
        return {k: _with_whole_lists(v) for k, v in node.items()} | lists
    return [_with_whole_lists(item) for item in node] if isinstance(node, list) else node


def _mark_unsupported(spec: dict[str, Any], path: str) -> None:
    """Begin the description of the field at `path` with the words that it is not supported yet."""
    field = spec
    for step in path.split("."):
        field = field["properties"][step]
    field["description"] = NOT_SUPPORTED + field["description"]


def _text(model: type[ApiModel]) -> str:
    return " ".join((model.__doc__ or "").split())
