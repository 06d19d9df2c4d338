"""Reads objects that another version wrote: unknown fields are left out and named."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)


def read_known(model: type[M], value: Any) -> tuple[M, list[str]]:
    """`value` without the fields that `model` does not know, and the paths of those, e.g. `training.future`.

    Raises:
        pydantic.ValidationError: a known field is wrong.
    """
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        reduced, unknown = without_unknown(value, error)
    return model.model_validate(reduced), unknown


def without_unknown(value: Any, error: ValidationError) -> tuple[Any, list[str]]:
    """A copy of `value` without the unknown fields for which it was refused, and their paths."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    unknown = [e["loc"] for e in problems if e["type"] == "extra_forbidden"]
    reduced = copy.deepcopy(value)
    for place in unknown:
        _remove(reduced, place)
    return reduced, [".".join(map(str, place)) for place in unknown]


def in_words(
    error: ValidationError, model: type[BaseModel] | None = None, tagged: Mapping[str, type[BaseModel]] | None = None
) -> list[str]:
    """Each problem as `place: problem`, without values, which may be long or private.

    Args:
        model: the type that was read; with it, the message for an unknown field names the nearest field.
        tagged: if the type was a union, its members by tag. Pydantic begins each place with the tag, which is in no
            file, so it is left out.
    """
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return [_in_words(problem, *_rooted(problem["loc"], model, tagged or {})) for problem in problems]


def only_unknown(error: ValidationError) -> bool:
    """Whether unknown fields are the only problem."""
    return all(e["type"] == "extra_forbidden" for e in error.errors(include_url=False, include_input=False))


def _rooted(
    place: tuple[int | str, ...], model: type[BaseModel] | None, tagged: Mapping[str, type[BaseModel]]
) -> tuple[tuple[int | str, ...], type[BaseModel] | None]:
    """The place without the tag of a union's member, and the type in which it is."""
    if place and isinstance(tag := place[0], str) and tag in tagged:
        return place[1:], tagged[tag]
    return place, model


def _in_words(problem: ErrorDetails, steps: tuple[int | str, ...], model: type[BaseModel] | None) -> str:
    place = ".".join(map(str, steps))
    if problem["type"] != "extra_forbidden":
        return f"{place}: {problem['msg'].removeprefix('Value error, ')}" if place else problem["msg"]
    *parent, name = steps
    fields = _fields(model, parent) if model else ()
    nearest = difflib.get_close_matches(str(name), fields, n=1)
    return f"{place}: unknown field" + (f", did you mean {nearest[0]}?" if nearest else "")


def _fields(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Names of the fields of the object at `place`; empty if it is not one of our objects."""
    type_here: type[BaseModel] | None = model
    for step in place:
        if type_here is None or isinstance(step, int):
            continue  # an item is of the type that its list names
        info = next((i for name, i in type_here.model_fields.items() if step in (name, i.alias)), None)
        type_here = _model_in(info.annotation) if info else None
    return [info.alias or name for name, info in type_here.model_fields.items()] if type_here else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in a type such as `list[Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for each in get_args(annotation) if (model := _model_in(each))), None)


def _remove(node: Any, place: Sequence[int | str]) -> None:
    """Delete the value at `place`; missing steps are names that pydantic gives to members of a union."""
    for step in place[:-1]:
        if isinstance(step, int) or (isinstance(node, dict) and step in node):
            node = node[step]
    if isinstance(node, dict):
        node.pop(place[-1], None)
