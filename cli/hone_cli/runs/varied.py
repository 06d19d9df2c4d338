"""What a sweep varies: read from the options, typed by the schema of a FineTuneJob. Pure."""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hone_api.base.meta import NUMBER
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.methods import METHOD_BLOCKS
from hone_cli.errors import CommandError

Setting = str | int | bool
BLOCKS = ("training", "adapter", "earlyStopping", *dict.fromkeys(METHOD_BLOCKS))
"""Blocks of a spec whose fields can be varied. Rows, base and evaluation are the same in all trials: otherwise there is
nothing to compare."""
_FORM = "write --vary training.learningRate=1e-5..1e-3:log, or --vary adapter.rank=8,16,32"
_DIGITS = 3
"""Significant digits of a number that is drawn from a range."""


@dataclass(frozen=True)
class VariedSetting:
    """One field, and the values that it may have: a list, or a range."""

    path: str
    choices: tuple[Setting, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False

    @property
    def samples(self) -> tuple[Setting, ...]:
        """All choices, or the ends of the range: if these are valid, the rest is."""
        return self.choices or (self.setting(self.low), self.setting(self.high))

    def setting(self, number: float) -> Setting:
        """A number of the range as the API writes it, with three significant digits."""
        if self.integer:
            return int(number)
        short = float(f"{number:.{_DIGITS}g}")
        return repr(short if self.low <= short <= self.high else float(number))


def read(texts: Iterable[str]) -> list[VariedSetting]:
    """What the options `--vary` say.

    Raises:
        CommandError: one cannot be read, names no field of a FineTuneJob, one that must not differ, or one twice.
    """
    found: dict[str, VariedSetting] = {}
    for text in texts:
        path, equals, values = text.partition("=")
        if not equals or not values:
            raise CommandError(f"--vary {text}: {_FORM}")
        if path in found:
            raise CommandError(f"--vary {path} is there twice: name all its values once")
        found[path] = _setting(path, values)
    if not found:
        raise CommandError(f"a sweep varies something: {_FORM}")
    return list(found.values())


def put(body: Mapping[str, Any], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The job with these settings.

    Raises:
        CommandError: on the way to a field is something else than a mapping.
    """
    out = copy.deepcopy(dict(body))
    for path, value in settings.items():
        *parents, last = path.split(".")
        place = out["spec"]
        for name in parents:
            if place.get(name) is None:
                place[name] = {}
            place = place[name]
            if not isinstance(place, dict):
                raise CommandError(f"spec.{path}: {name} of the manifest is not a mapping")
        place[last] = value
    return out


def present(body: Mapping[str, Any], space: Iterable[VariedSetting]) -> dict[str, Setting]:
    """The varied settings that the job has already."""
    found: dict[str, Setting] = {}
    for each in space:
        place: Any = body["spec"]
        for name in each.path.split("."):
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, str | int | bool):
            found[each.path] = place
        elif isinstance(place, float):
            found[each.path] = f"{place:g}"
    return found


def _setting(path: str, values: str) -> VariedSetting:
    field = _field(path)
    types = {each.get("type") for each in _alternatives(field)}
    number = any(NUMBER in each for each in _alternatives(field))
    text, colon, scale = values.partition(":")
    low, dots, high = text.partition("..")
    if dots:
        if colon and scale != "log":
            raise CommandError(f"--vary {path}={values}: after a range comes :log, or nothing")
        if not number and "integer" not in types:
            raise CommandError(f"--vary {path}={values}: it is not a number; name its values with commas")
        return _range(path, low, high, log=bool(colon), integer=not number)
    if types <= {"array", "object", "null"}:
        raise CommandError(f"--vary {path}: it has several values at once; name one of its fields, if it has any")
    choices = tuple(_choice(path, each, types) for each in values.split(","))
    if len(set(choices)) < len(choices):
        raise CommandError(f"--vary {path}={values}: a value is there twice")
    return VariedSetting(path, choices)


def _range(path: str, low: str, high: str, *, log: bool, integer: bool) -> VariedSetting:
    try:
        ends = (int(low), int(high)) if integer else (float(low), float(high))
    except ValueError:
        kind = "whole numbers" if integer else "numbers"
        raise CommandError(f"--vary {path}={low}..{high}: the ends of its range are {kind}") from None
    if not (all(map(math.isfinite, ends)) and ends[0] < ends[1]):
        raise CommandError(f"--vary {path}={low}..{high}: the first end must be below the second")
    if log and ends[0] <= 0:
        raise CommandError(f"--vary {path}={low}..{high}:log: a logarithmic range begins above 0")
    return VariedSetting(path, low=ends[0], high=ends[1], log=log, integer=integer)


def _choice(path: str, text: str, types: set[Any]) -> Setting:
    if "boolean" in types:
        if text not in ("true", "false"):
            raise CommandError(f"--vary {path}: {text} is neither true nor false")
        return text == "true"
    if "integer" in types and "string" not in types:
        try:
            return int(text)
        except ValueError:
            raise CommandError(f"--vary {path}: {text} is not a whole number") from None
    return text


_SCHEMA = FineTuneJobSpec.model_json_schema(by_alias=True)


def _field(path: str) -> Mapping[str, Any]:
    """The schema of a field.

    Raises:
        CommandError: there is none, or it must be the same in all trials.
    """
    here: Mapping[str, Any] = _SCHEMA
    names = path.split(".")
    for depth, name in enumerate(names):
        fields = {key: field for each in _alternatives(here) for key, field in each.get("properties", {}).items()}
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            place = ".".join(["spec", *names[:depth]])
            raise CommandError(f"--vary {path}: {place} has no {name}{f': did you mean {near[0]}?' if near else ''}")
        here = fields[name]
    if names[0] not in BLOCKS:
        raise CommandError(f"--vary {path}: all trials share {names[0]}; vary fields of {', '.join(BLOCKS)}")
    return here


def _alternatives(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A schema without references, and each alternative in it."""
    if reference := schema.get("$ref"):
        schema = {**schema, **_SCHEMA["$defs"][reference.rpartition("/")[2]]}
    if "anyOf" in schema:
        for each in schema["anyOf"]:
            yield from _alternatives(each)
    else:
        yield schema
