"""JSON Schemas that a user writes: they must be self-contained, since nothing is ever fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def problem(text: str) -> str | None:
    """Why a JSON Schema is refused before it is used, with the way out; None if it is accepted.

    A reference must begin with `#`: one with a URL or file name would make any validator fetch it.
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
    """A property with the name of a reference keyword has a schema, not a text, as its value."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in _REFERENCES and isinstance(value, str) and not value.startswith("#"):
                yield value
            yield from _foreign(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _foreign(value)
