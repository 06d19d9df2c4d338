"""The texts of a normalised record, of whatever format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hone_trainer.datasets.rows import Record

ANSWER_FIELDS = frozenset({"completion", "assistant", "chosen", "rejected", "answer"})
_NO_TEXT = frozenset({"role", "id", "type", "tool_call_id"})
"""Fields whose values are words of the format, not the user's."""


_CALLS = "tool_calls"


def is_answer(field: str) -> bool:
    """Whether the model is trained to write this text; field is one of `texts`."""
    return field in ANSWER_FIELDS or field.startswith(_CALLS)


def texts(record: Record) -> Iterator[tuple[str, str]]:
    """(field or role, text) of every text in the record, in its order; tool_calls:key for what calls of tools hold."""
    return _texts("", record)


def joined(record: Record) -> str:
    """All texts, a line each."""
    return "\n".join(text for _, text in texts(record))


def sides(record: Record) -> tuple[str, str]:
    """What is asked, without system turns, and what is answered; plain text is all asked."""
    questions: list[str] = []
    answered: list[str] = []
    for field, text in texts(record):
        if field != "system":
            (answered if is_answer(field) else questions).append(text)
    return "\n".join(questions), "\n".join(answered)


def _texts(where: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        role = value.get("role", where)
        for key, inner in value.items():
            if key not in _NO_TEXT:
                if key == _CALLS:
                    for call in inner:
                        yield from _called(_CALLS, call.get("function", call))
                else:
                    yield from _texts(role if key == "content" else key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(where, inner)


def _called(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Names and arguments; also numbers, since the model writes them."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _called(f"{_CALLS}:{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _called(where, inner)
    else:
        yield where, value if isinstance(value, str) else json.dumps(value)
