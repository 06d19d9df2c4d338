"""`helm template` of the chart."""

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from support.cluster.chart_documents import template
from support.cluster.quick_yaml import documents

Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def render() -> Render:
    """render(values, *arguments) -> documents; helm is asked once for the same."""
    remembered = functools.cache(template)

    def run(values: dict[str, Any] | None = None, *arguments: str) -> list[dict[str, Any]]:
        return documents(remembered(json.dumps(values or {}), *arguments))

    return run
