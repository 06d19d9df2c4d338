"""Paths in a plan: one type that marks them, and one walk that lists them and makes them absolute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel


class _IsPath:
    """Marks a field's text as a path."""


_MARK = _IsPath()
PlanPath = Annotated[str, _MARK]
"""A file or folder of the machine that reads the plan; relative ones are relative to the plan file's folder."""
ModelT = TypeVar("ModelT", bound=BaseModel)


def absolute(plan: ModelT, folder: Path) -> ModelT:
    """The plan with absolute paths.

    Args:
        folder: of the plan's file.
    """
    return _with_paths(plan, "", lambda _, path: str((folder / path).absolute()))


def paths_of(plan: BaseModel) -> Iterator[tuple[str, str]]:
    """Each path that is set, after the place of its field, e.g. ("datasets[0].path", "rows.jsonl")."""
    places: list[tuple[str, str]] = []

    def note(place: str, path: str) -> str:
        places.append((place, path))
        return path

    _with_paths(plan, "", note)
    return iter(places)


def _with_paths(model: ModelT, place: str, change: Callable[[str, str], str]) -> ModelT:
    """The model with `change(place, path)` in place of each path. Fields without a path stay unset."""
    changed = {}
    for name, kind in _kinds(type(model)).items():
        value = getattr(model, name)
        new = _walked(kind, value, f"{place}.{name}" if place else name, change)
        if new is not value:
            changed[name] = new
    return model.model_copy(update=changed) if changed else model


@cache
def _kinds(model: type[BaseModel]) -> dict[str, Any]:
    """The declared type of each field."""
    hints = get_type_hints(model, include_extras=True)
    return {name: hints[name] for name in model.model_fields}


def _walked(kind: Any, value: Any, place: str, change: Callable[[str, str], str]) -> Any:
    """The value with changed paths; the same object if nothing in it changed."""
    if isinstance(value, BaseModel):
        return _with_paths(value, place, change)
    if isinstance(value, list):
        of = _element(kind, list)
        items = [_walked(of, item, f"{place}[{i}]", change) for i, item in enumerate(value)]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if isinstance(value, dict):
        of = _element(kind, dict)
        values = {key: _walked(of, item, f"{place}.{key}", change) for key, item in value.items()}
        return values if any(new is not value[key] for key, new in values.items()) else value
    is_path = any(_MARK in getattr(part, "__metadata__", ()) for part in _alternatives(kind))
    return change(place, value) if is_path and isinstance(value, str) else value


def _alternatives(kind: Any) -> Iterator[Any]:
    """A type, what it annotates, and the members of a union."""
    yield kind
    if get_origin(kind) is Annotated:
        yield from _alternatives(kind.__origin__)
    elif get_origin(kind) in (Union, UnionType):
        for part in get_args(kind):
            yield from _alternatives(part)


def _element(kind: Any, container: type) -> Any:
    """The type of a list's items, or of a dictionary's values."""
    return next((get_args(part)[-1] for part in _alternatives(kind) if get_origin(part) is container), Any)
