"""What a value of another tool is in a field of Hone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from hone_cli.convert.tables import ValueRow

LOCAL = "file:"
"""Beginning of a source that is a file on a machine, or a name that only the tool knows."""
_HUB = re.compile(r"[A-Za-z0-9][-\w.]*/[A-Za-z0-9][-\w.]*")
_MODULES = {
    "wq_a": ["q_a_proj"],
    "wq_b": ["q_b_proj"],
    "wkv": ["kv_proj"],
    "wo_a": ["o_a_proj"],
    "wo_b": ["o_b_proj"],
    "experts": ["gate_proj", "up_proj", "down_proj"],
}
"""NeMo Automodel's own modules, by the names that transformers has for them."""
_FILE = re.compile(r"\.(jsonl?|csv|tsv|parquet|txt|arrow|ya?ml)(\.\w+)?$")


class NoCounterpartError(Exception):
    """The value has no counterpart: a reason for the list."""


class NotOfferedError(Exception):
    """No job of Hone does this."""


class Partly(NamedTuple):
    """A value that is taken, and what of it is not."""

    value: Any
    reason: str


def plain(value: Any) -> Any:
    """A number as an API without floats takes it."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else repr(value)
    return value.strip() if isinstance(value, str) else value


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise NoCounterpartError(f"{value} is not a number")
    return number


def _integer(value: Any) -> int:
    number = _number(value)
    if not number.is_integer():
        raise NoCounterpartError(f"{value} is a share, and the field counts")
    return int(number)


def _positive(value: Any) -> int | None:
    return number if (number := _integer(value)) > 0 else None


def _several(value: Any) -> int | None:
    return number if (number := _integer(value)) > 1 else None


def _model(value: Any) -> str:
    text = str(value).strip().removeprefix("hf://").removeprefix("https://huggingface.co/")
    if not _HUB.fullmatch(text):
        raise NoCounterpartError("is not owner/name of a hub: name the model by --model")
    return f"hf://{text}"


def _rows(value: Any) -> Any:
    """Sources, one for each name."""
    names = [str(each).strip() for each in (value if isinstance(value, list) else str(value).split(","))]
    if not names:
        raise NoCounterpartError("names no rows")
    sources = [_source(name) for name in names]
    if any(name.startswith("hf://") and name != source for name, source in zip(names, sources, strict=True)):
        return Partly(sources, "all files of the data set are read; source.files of the Dataset names some")
    return sources


def _source(text: str) -> str:
    if text.startswith("https://huggingface.co/datasets/"):
        owner, name, *path = text.removeprefix("https://huggingface.co/datasets/").split("/")
        return f"hf://{owner}/{name}" if not path else text.partition("?")[0]
    if text.startswith("hf://"):
        return "/".join(text.split("/")[:4])
    if text.startswith(("s3://", "https://", "pvc://")):
        return text.partition("?")[0]
    return f"hf://{text}" if _HUB.fullmatch(text) and not _FILE.search(text) else LOCAL + text


def _split(value: Any) -> Any:
    name, bracket, _ = str(value).partition("[")
    if bracket or "+" in name:
        return Partly(name.partition("+")[0], f"one whole split is read, not {value}")
    return name


def _share(value: Any) -> str:
    number = _number(value)
    if number >= 1:
        raise NoCounterpartError("is a number of rows: splits.validation is a share, e.g. 5%")
    return f"{round(number * 100, 4):g}%"


def _auto(value: Any) -> Any:
    return None if value == "auto" else plain(value)


def _claim(value: Any) -> list[str]:
    return [f"pvc://{value}/data"]


def _rest(value: Any) -> str:
    return _share(1 - _number(value))


def _truth(value: Any) -> bool | None:
    return True if value else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _names(value: Any) -> list[str] | None:
    names = [name.strip() for each in _list(value) for name in str(each).split(",")]
    if names in (["all"], ["all-linear"], ["*"], ["*_proj"]):
        return None  # all linear layers, as Hone does
    names = [name.rpartition(".")[2].removeprefix("*") if name.startswith("*") else name for name in names]
    if any(re.search(r"[^\w.]", name) for name in names):
        raise NoCounterpartError(
            "is a pattern: adapter.targets has names; without it all linear layers except the head"
        )
    return [*dict.fromkeys(layer for name in names for layer in _MODULES.get(name, [name]))]


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "": plain,
    "number": _number,
    "whole": _integer,
    "positive": _positive,
    "several": _several,
    "model": _model,
    "rows": _rows,
    "split": _split,
    "share": _share,
    "auto": _auto,
    "rest": _rest,
    "truth": _truth,
    "claim": _claim,
    "seconds": lambda value: f"{value}s",
    "list": _list,
    "names": _names,
}


def is_off(value: Any) -> bool:
    """Whether a setting is there and says nothing."""
    return value is None or value is False or value in ("", [], {}, "none", "None", "null", "false", "no")


def targets(row: str | list[str] | ValueRow, value: Any) -> dict[str, Any]:
    """Target to value; a target without a value is one whose default fits.

    Raises:
        NoCounterpartError: there is none.
        NotOfferedError: the value asks for what no job does.
    """
    if isinstance(row, ValueRow):
        return _by_name(row, value)
    pairs = [each.partition(" ")[::2] for each in ([row] if isinstance(row, str) else row)]
    return {to: CONVERSIONS[how](value) for to, how in pairs}


def _by_name(row: ValueRow, value: Any) -> dict[str, Any]:
    text = str(value).strip().lower()
    known = {pattern.lower(): result for pattern, result in row.values.items()}
    pattern = text if text in known else next((p for p in known if "*" in p and fnmatchcase(text, p)), None)
    if pattern is None:
        choices = ", ".join(p for p in known if "*" not in p)
        raise NoCounterpartError(f"{value} has no counterpart: Hone knows {choices}")
    result = known[pattern]
    if isinstance(result, str):
        kind, colon, reason = result.partition(": ")
        if colon and kind == "refused":
            raise NotOfferedError(reason)
        if colon and kind == "differs":
            raise NoCounterpartError(reason)
        if colon and kind == "partly":
            value, _, reason = reason.partition(": ")
            return {row.to: Partly(typed(value), reason)}
    if isinstance(result, dict):
        return {to: typed(each) for to, each in result.items()}
    return {row.to: typed(result)}


def default(text: str) -> tuple[Any, str]:
    """A default of a table, and its comment after `#`."""
    value, _, comment = text.partition(" # ")
    return typed(value), comment


def typed(text: Any) -> Any:
    """A value of a table, all of whose scalars are texts."""
    if text in ("null", "", "true", "false"):
        return {"true": True, "false": False}.get(text)
    return int(text) if isinstance(text, str) and re.fullmatch(r"\d+", text) else text
