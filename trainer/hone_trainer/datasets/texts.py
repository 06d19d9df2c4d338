"""The texts of a normalised record, of whatever format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hone_trainer.datasets.rows import Record

ANSWER_FIELDS = frozenset({"completion", "assistant", "chosen", "rejected", "answer"})
_NO_TEXT = frozenset({"role", "id", "type", "tool_call_id"})
"""Fields whose values are words of the format, not the user's."""


def texts(record: Record) -> Iterator[tuple[str, str]]:
    """(field or role, text) of every text in the record, in its order."""
    return _texts("", record)


def joined(record: Record) -> str:
    """All texts, a line each."""
    return "\n".join(text for _, text in texts(record))


def sides(record: Record) -> tuple[str, str]:
    """What is asked, without system turns, and what is answered; plain text is all asked."""
    asked: list[str] = []
    answered: list[str] = []
    for field, text in texts(record):
        if field != "system":
            (answered if field in ANSWER_FIELDS else asked).append(text)
    return "\n".join(asked), "\n".join(answered)


def _texts(where: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        role = value.get("role", where)
        for key, inner in value.items():
            if key not in _NO_TEXT:
                yield from _texts(role if key == "content" else key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(where, inner)
