"""The configuration of another tool as one document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone_cli.convert.engine import flat
from hone_cli.errors import CommandError


def read(file: Path, tool: str | None = None) -> dict[str, Any]:
    """The document of a file, with OmegaConf's references resolved.

    Raises:
        CommandError: the file cannot be read, or is not one mapping.
    """
    from hone_cli.runs.manifests import documents

    bodies = [body for _, body in documents(file)]
    document = bodies[0] if len(bodies) == 1 else None
    if not isinstance(document, dict):
        raise CommandError(f"{file} is not a configuration: it is not one mapping of keys to values")
    return _resolved(document)


def _resolved(document: dict[str, Any]) -> dict[str, Any]:
    values = {key: value for key, value in flat(document) if isinstance(value, str | int | float)}

    def text(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): text(each) for name, each in value.items()}
        if isinstance(value, list):
            return [text(each) for each in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        whole = re.fullmatch(r"\$\{([\w.]+)\}", value)
        if whole and whole[1] in values:
            return values[whole[1]]
        return re.sub(r"\$\{([\w.]+)\}", lambda match: str(values.get(match[1], match[0])), value)

    return {name: text(value) for name, value in document.items()}
