"""Reading what a neighbouring version wrote: a field that this version does not know is left out and named."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


def read_known(model: type[M], value: Any) -> tuple[M, list[str]]:
    """`value` without the fields that `model` does not know, and the paths of those, e.g. `training.future`.

    Raises:
        pydantic.ValidationError: when what it does know is wrong.
    """
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        known, unknown = without_unknown(value, error)
    return model.model_validate(known), unknown


def without_unknown(value: Any, error: ValidationError) -> tuple[Any, list[str]]:
    """A copy of `value` without the fields that it was refused for because nobody knows them, and their paths."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    unknown = [e["loc"] for e in problems if e["type"] == "extra_forbidden"]
    known = copy.deepcopy(value)
    for place in unknown:
        _remove(known, place)
    return known, [".".join(map(str, place)) for place in unknown]


def _remove(node: Any, place: Sequence[int | str]) -> None:
    """Delete what is at `place`; a step that is not there is the name that pydantic gives to a member of a union."""
    for step in place[:-1]:
        if isinstance(step, int) or (isinstance(node, dict) and step in node):
            node = node[step]
    if isinstance(node, dict):
        node.pop(place[-1], None)
