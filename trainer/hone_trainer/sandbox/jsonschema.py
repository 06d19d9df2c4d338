"""Validates JSON Schema in a worker: a schema's `pattern` is a regular expression that can backtrack without end."""

from __future__ import annotations

import json
from typing import Any

import referencing
from jsonschema.validators import validator_for


def is_valid(schema: Any, instance: str) -> bool:
    """Whether a text is JSON that the schema allows. A reference outside the schema is never fetched."""
    try:
        value = json.loads(instance)
    except ValueError:
        return False
    # Without an explicit registry, jsonschema fetches the target of `$ref`: http, https, ftp and file.
    return bool(validator_for(schema)(schema, registry=referencing.Registry()).is_valid(value))
