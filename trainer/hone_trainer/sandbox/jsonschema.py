"""JSON Schema, in a worker: a schema's `pattern` is a regular expression that can backtrack without end."""

from __future__ import annotations

import json
from typing import Any

from jsonschema.validators import validator_for


def is_valid(schema: Any, instance: str) -> bool:
    """Whether a text is JSON that the schema allows."""
    try:
        value = json.loads(instance)
    except ValueError:
        return False
    return bool(validator_for(schema)(schema).is_valid(value))
