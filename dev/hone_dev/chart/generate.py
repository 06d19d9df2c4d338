"""Write the chart's values.yaml, values.schema.json, README.md and its list of the operator's values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hone_api.base.meta import NUMBER
from hone_api.base.rule import VALIDATIONS
from hone_api.blocks.pod_settings import FREE_KEYS, RESERVED_KEYS
from hone_dev.chart.kubernetes_types import resolved
from hone_dev.chart.values import ChartValues
from hone_dev.tools import paths
from hone_operator.settings.section import RESERVED_ENV, RESERVED_ENV_PREFIXES
from hone_operator.settings.values import Values

CHART = paths.SOURCE / "charts" / "hone"
NOTICE = "Written by `python -m hone_dev.chart.generate` from hone_operator.settings and dev/hone_dev/chart/values.py."


def generated() -> dict[Path, str]:
    """Every generated file of the chart and its content."""
    template = Path(__file__).with_name("README.md.template").read_text()
    return {
        CHART / "values.yaml": f"# {NOTICE}\n" + "\n".join(_yaml(ChartValues, 0)) + "\n",
        CHART / "values.schema.json": json.dumps(schema(), indent=2) + "\n",
        CHART / "templates/_settings.tpl": _settings(),
        CHART / "README.md": template.replace("{{ values }}", "\n".join(_table())),
    }


def _settings() -> str:
    names = " ".join(f'"{name}"' for name, _, _ in _fields(Values))
    taken = f"^({'|'.join((*sorted(RESERVED_ENV), *(f'{prefix}.*' for prefix in RESERVED_ENV_PREFIXES)))})$"
    return (
        f"{{{{- /* {NOTICE} */ -}}}}\n"
        "{{- /* The values that the operator reads as they are. */ -}}\n"
        f'{{{{- define "hone.settings" -}}}}\n{{{{ toYaml (pick .Values {names}) }}}}\n{{{{- end }}}}\n'
        "{{- /* Keys of labels and annotations that belong to Kubernetes, Kueue and Hone. */ -}}\n"
        f'{{{{- define "hone.isReservedKey" -}}}}\n{{{{- if and (regexMatch `{RESERVED_KEYS}` .) '
        f'(not (hasPrefix "{FREE_KEYS}" .)) }}}}true{{{{ end }}}}\n{{{{- end }}}}\n'
        "{{- /* Environment variables that Hone itself sets. */ -}}\n"
        f'{{{{- define "hone.isReservedEnv" -}}}}\n{{{{- if regexMatch `{taken}` . }}}}true{{{{ end }}}}\n'
        "{{- end }}\n"
    )


def schema() -> dict[str, Any]:
    """JSON Schema of the values; strict: every object that is ours refuses unknown names.

    A value that is null is absent: Helm removes it, with its default. It is required where templates rely on it.
    """
    out = ChartValues.model_json_schema(by_alias=True)
    _require(out, out["$defs"], ChartValues)
    types: dict[str, Any] = {}
    out = resolved(out, types)
    out["$defs"] |= types
    out["$schema"] = "http://json-schema.org/draft-07/schema#"
    out["title"] = "Values of the chart hone"
    plain: dict[str, Any] = _plain(out)
    return plain


def _require(node: dict[str, Any], others: dict[str, Any], model: type[BaseModel], of_operator: bool = False) -> bool:
    """Require all that the operator reads, and what is not empty by default; returns whether there is anything."""
    required = []
    for name, field, part in _fields(model):
        read = of_operator or (model is ChartValues and name in [each for each, _, _ in _fields(Values)])
        if _require(others[part.__name__], others, part, read) if part else read or _default(field) not in ("", [], {}):
            required.append(name)
    if required:
        node["required"] = required
    return bool(required)


def _plain(node: Any) -> Any:
    """Without pydantic's titles and defaults (values.yaml has the defaults), and in the names of draft 7."""
    if isinstance(node, list):
        return [_plain(n) for n in node]
    if not isinstance(node, dict):
        return node
    out = {k: _plain(v) for k, v in node.items() if k not in ("title", "default", NUMBER, VALIDATIONS)}
    if NUMBER in node:  # text only: Helm writes a large number of a values file with an exponent
        out = {k: v for k, v in out.items() if k not in ("minimum", "maximum")}
    if "patternProperties" in out:
        out["additionalProperties"] = False
    if "$defs" in out:
        out["definitions"] = out.pop("$defs")
    if isinstance(out.get("$ref"), str):
        out["$ref"] = out["$ref"].replace("#/$defs/", "#/definitions/")
    return out


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, type[BaseModel] | None]]:
    """(name in YAML, field, model of a nested part)."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        part = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        yield field.alias or name, field, part


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _yaml(model: type[BaseModel], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for name, field, part in _fields(model):
        if part:
            yield f"{pad}{name}:"
            yield from _yaml(part, depth + 1)
            continue
        yield f"{pad}# -- {field.description}"
        text = yaml.safe_dump({name: _default(field)}, sort_keys=False, default_flow_style=False, width=110)
        yield from (f"{pad}{line}" for line in text.rstrip().splitlines())


def _table() -> Iterator[str]:
    yield "| Value | Default | Meaning |"
    yield "|---|---|---|"
    yield from _rows(ChartValues, "")


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field, part in _fields(model):
        if part:
            yield from _rows(part, f"{prefix}{name}.")
        else:
            yield f"| `{prefix}{name}` | `{json.dumps(_default(field))}` | {field.description} |"


def main() -> None:
    """Write the files that differ."""
    for path, text in generated().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(paths.SOURCE)}")


if __name__ == "__main__":
    main()
