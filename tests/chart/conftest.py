"""`helm template` of the chart."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from hone_dev import paths, tools

CHART = paths.SOURCE / "charts" / "hone"
Render = Callable[..., list[dict[str, Any]]]


class HelmError(Exception):
    """helm refused; the message is what it said."""


@pytest.fixture(scope="session")
def render() -> Render:
    """render(values, *arguments) -> documents."""

    def run(values: dict[str, Any] | None = None, *arguments: str) -> list[dict[str, Any]]:
        command = [tools.helm(), "template", "hone", CHART, "--namespace", "hone-system", "--values", "-", *arguments]
        result = subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True)
        if result.returncode:
            raise HelmError(result.stderr)
        return [document for document in yaml.safe_load_all(result.stdout) if document]

    return run
