"""Reading what a neighbouring version wrote: a field that this version does not know is left out and named."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

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


def in_words(error: ValidationError, model: type[BaseModel] | None = None) -> list[str]:
    """Each problem as `place: what is wrong`, without values: they may be long, or private.

    Args:
        model: what was read; with it an unknown field is told the nearest name that there is.
    """
    return [_in_words(e, model) for e in error.errors(include_url=False, include_input=False, include_context=False)]


def only_unknown(error: ValidationError) -> bool:
    """Whether all that is wrong is names of fields that do not exist."""
    return all(e["type"] == "extra_forbidden" for e in error.errors(include_url=False, include_input=False))


def _in_words(problem: ErrorDetails, model: type[BaseModel] | None) -> str:
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] != "extra_forbidden":
        return f"{place}: {problem['msg'].removeprefix('Value error, ')}" if place else problem["msg"]
    *parent, name = problem["loc"]
    known = _fields(model, parent) if model else ()
    nearest = difflib.get_close_matches(str(name), known, n=1)
    return f"{place}: unknown field" + (f", did you mean {nearest[0]}?" if nearest else "")


def _fields(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Names of the fields of the object at `place`; empty where that is no object of ours."""
    found: type[BaseModel] | None = model
    for step in place:
        if found is None or isinstance(step, int):
            continue  # an item is of the type that its list names
        info = next((i for name, i in found.model_fields.items() if step in (name, i.alias)), None)
        found = _model_in(info.annotation) if info else None
    return [info.alias or name for name, info in found.model_fields.items()] if found else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in a type such as `list[Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each))), None)


def _remove(node: Any, place: Sequence[int | str]) -> None:
    """Delete what is at `place`; a step that is not there is the name that pydantic gives to a member of a union."""
    for step in place[:-1]:
        if isinstance(step, int) or (isinstance(node, dict) and step in node):
            node = node[step]
    if isinstance(node, dict):
        node.pop(place[-1], None)
