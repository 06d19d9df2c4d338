"""Golden files: what should exist, as reviewed. `UPDATE_GOLDEN=1 pytest tests/operator/desired` rewrites them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).with_name("golden")


class _Dumper(yaml.SafeDumper):
    """Multi-line text (the plan) as a block."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


@pytest.fixture
def golden() -> Any:
    """golden(name, objects): equal to the file of that name."""

    def check(name: str, objects: list[dict[str, Any]]) -> None:
        file = FOLDER / f"{name}.yaml"
        text = yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
        if os.environ.get("UPDATE_GOLDEN"):
            FOLDER.mkdir(exist_ok=True)
            file.write_text(text)
        assert text == file.read_text(), f"{file.name} differs; UPDATE_GOLDEN=1 rewrites it"

    return check
