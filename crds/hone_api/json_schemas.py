"""JSON Schemas that a user writes: they must be complete in themselves, since nothing is ever fetched for one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def problem(text: str) -> str | None:
    """Why a JSON Schema is refused before anything reads it, with the way out; None when nothing is wrong.

    A reference must begin with `#`. One that names an address or a file would make whoever validates with the schema
    fetch it.
    """
    try:
        schema = json.loads(text)
        foreign = next(_foreign(schema), None)
    except RecursionError:
        return "is nested too deep"
    except ValueError as error:
        return f"is not JSON: {error}"
    if foreign is None:
        return None
    return f"refers to {foreign[:100]!r}, and nothing is fetched: copy what it needs to $defs and write #/$defs/…"


def _foreign(schema: Any) -> Iterator[str]:
    """A property that is named like a reference has a schema and not a text as its value."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in _REFERENCES and isinstance(value, str) and not value.startswith("#"):
                yield value
            yield from _foreign(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _foreign(value)
