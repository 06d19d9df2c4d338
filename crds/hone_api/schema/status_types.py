"""The source of `status_json`: the statuses of all kinds as TypedDicts, made of their models."""

from __future__ import annotations

import types
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hone_api.base.meta import ApiModel, Kind

HEADER = '''"""Statuses as JSON, as the operator writes them. Generated from the models by `make crds`; do not edit.

Fields of a status itself can be None: setting one to None removes it.
"""

from typing import Literal, Required, TypedDict
'''


def status_types(kinds: tuple[Kind, ...]) -> str:
    """A module with one TypedDict for each model of a status, each after those that it names."""
    classes: dict[type[ApiModel], str] = {}
    for kind in kinds:
        _add(kind.status, classes, is_status=True)
    return "\n\n".join([HEADER, *classes.values()])


def _add(model: type[ApiModel], classes: dict[type[ApiModel], str], *, is_status: bool = False) -> None:
    """Put the class of `model` into `classes`, after those of the models in its fields."""
    if model in classes:
        return
    lines = [f"class {_name(model)}(TypedDict, total=False):"]
    for name, info in model.model_fields.items():
        declared = info.annotation
        for inner in _models(declared):
            _add(inner, classes)
        text = _text(declared)
        if is_status:
            text = text if text.endswith(" | None") else f"{text} | None"
        else:
            text = text.removesuffix(" | None")
            text = f"Required[{text}]" if info.is_required() else text
        lines.append(f"    {info.alias or name}: {text}")
    classes[model] = "\n".join(lines) + "\n"


def _name(model: type[ApiModel]) -> str:
    return f"{model.__name__}Json"


def _models(declared: Any) -> list[type[ApiModel]]:
    if isinstance(declared, type) and issubclass(declared, ApiModel):
        return [declared]
    return [model for inner in get_args(declared) for model in _models(inner)]


def _text(declared: Any) -> str:
    """A field's type as JSON has it."""
    origin, inner = get_origin(declared), get_args(declared)
    if origin is Annotated:
        return _text(inner[0])
    if origin in (Union, types.UnionType):
        texts = [_text(each) for each in inner if each is not type(None)]
        return " | ".join([*texts, *(["None"] if type(None) in inner else [])])
    if origin in (list, dict):
        return f"{origin.__name__}[{', '.join(map(_text, inner))}]"
    if origin is Literal:
        return f"Literal[{', '.join(repr(value) for value in inner)}]".replace("'", '"')
    if issubclass(declared, ApiModel):
        return _name(declared)
    if issubclass(declared, Enum):
        return "str"
    return str(declared.__name__)
