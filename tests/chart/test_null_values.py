"""A value that is null: Helm removes it with its default, so it is refused by name, or means what the default means."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from support.cluster.chart_documents import CHART, HelmError, template

pytestmark = pytest.mark.pure
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = jsonschema.Draft7Validator(json.loads((CHART / "values.schema.json").read_text()))
REMOVED = ("resources", "requests"), ("resources", "limits")
"""To remove a request or a limit is why charts leave these free."""


def paths(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in node.items() if isinstance(node, dict) else ():
        yield (*path, name)
        yield from paths(value, (*path, name))


PATHS = [path for path in paths(DEFAULTS) if path[:2] not in REMOVED]


def without(path: tuple[str, ...], values: Any) -> Any:
    """The values as Helm hands them to the schema and to the templates."""
    values = copy.deepcopy(values)
    node = values
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    return values


def test_each_null_is_refused_by_its_name_or_is_as_the_default() -> None:
    refused = {path: [e.message for e in SCHEMA.iter_errors(without(path, DEFAULTS))] for path in PATHS}
    for path, messages in refused.items():
        assert messages in ([], [f"{path[-1]!r} is a required property"]), path
    empty: dict[str, Any] = {}
    for path in (path for path, messages in refused.items() if not messages):
        node = empty
        for part in path[:-1]:
            node = node.setdefault(part, {}) or {}
        node[path[-1]] = None
    assert {"namespaces", "nodeSelector", "extraEnv"} <= empty.keys()
    assert template(json.dumps(empty)) == template("{}")


@pytest.mark.parametrize("path", [("admission", "enabled"), ("tenants", "runtimeClasses"), ("store",), ("kueue",)])
def test_helm_says_which_value_is_missing(path: tuple[str, ...]) -> None:
    values: Any = None
    for part in reversed(path):
        values = {part: values}
    at = f"/{'/'.join(path[:-1])}" if path[:-1] else ""
    with pytest.raises(HelmError, match=re.escape(f"at '{at}': missing property '{path[-1]}'")):
        template(json.dumps(values))
