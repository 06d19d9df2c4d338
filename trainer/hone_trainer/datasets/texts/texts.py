"""The texts of a normalised record, of whatever format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hone_trainer.datasets.readers.rows import Record, canonical

ANSWER_FIELDS = frozenset({"completion", "assistant", "chosen", "rejected", "answer", "recorded"})
_NO_TEXT = frozenset({"role", "id", "type", "tool_call_id"})
"""Fields whose values are words of the format, not the user's."""


_CALLS = "tool_calls"
Texts = list[tuple[str, str]]
"""Of a record, as `texts` has them."""


def is_answer(field: str) -> bool:
    """Whether the model is trained to write this text; field is one of `texts`."""
    return field in ANSWER_FIELDS or field.startswith(_CALLS)


def texts(record: Record) -> Iterator[tuple[str, str]]:
    """(field or role, text) of every text in the record, in its order; tool_calls:key for what calls of tools hold."""
    return _texts("", record)


def texts_of(record: Record) -> Texts:
    """`texts` of a record as a list; faster for those that most rows are."""
    if len(record) == 2 and isinstance(prompt := record.get("prompt"), str):
        if isinstance(completion := record.get("completion"), str):
            return [("prompt", prompt), ("completion", completion)]
    elif len(record) == 1:
        if isinstance(text := record.get("text"), str):
            return [("text", text)]
        if (turns := record.get("messages")) is not None and all(len(turn) == 2 for turn in turns):
            return [(turn["role"], turn["content"]) for turn in turns]
    return list(texts(record))


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


class ValidRow:
    """A valid row: its normalised record, and the same as canonical JSON.

    Rows of one group stay in one split; no group: the row is its own. label is its value of curation.balance.column,
    stratum that of splits.stratifyBy.
    """

    __slots__ = ("group", "label", "line", "record", "stratum", "texts")

    def __init__(self, line: str, record: Record, group: str = "", label: str = "", stratum: str = "") -> None:
        self.line, self.record = line, record
        self.group, self.label, self.stratum = group, label, stratum
        self.texts = texts_of(record)

    @property
    def text(self) -> str:
        """All texts, a line each."""
        return "\n".join([text for _, text in self.texts])

    def altered(self, record: Record) -> ValidRow:
        """The same row with another record."""
        return ValidRow(canonical(record), record, self.group, self.label, self.stratum)


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
