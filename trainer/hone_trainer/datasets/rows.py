"""A row on its way: raw, then a normalised record, or a reason why it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
"""A normalised row: {messages: [{role, content}]}, {prompt, completion} or {text}."""

ROW_CODES = {
    "NotUTF8": "The row is not UTF-8 text, or holds half of a surrogate pair.",
    "BrokenJson": "The line, or the element of the array, is not JSON (NaN and Infinity are not).",
    "BrokenCsv": "The line's number of fields differs from the header's, or its quoting is broken.",
    "BrokenFile": "The file ends early or is damaged (gzip, Parquet); rows after that point are not read.",
    "RowTooLarge": "The row is over 16 MiB.",
    "WrongType": "The row, or a field of it, has another type than the format's.",
    "MissingColumn": "A column that the format needs is absent or null.",
    "EmptyContent": "A text that must say something is empty or only white space.",
    "UnknownRole": "A turn's role is none that the format knows.",
    "NoUserTurn": "The conversation does not start with a user turn (after system turns).",
    "NoAssistantTurn": "The conversation has no assistant turn: nothing to learn.",
    "ToolCalls": "Tools and tool calls are not supported.",
    "NotText": "A turn has images or other content that is not text.",
    "UnsupportedField": "A turn has a field that would change its meaning, e.g. weight: 0 or name.",
}
"""The closed list of reasons to refuse a row."""


class RowError(ValueError):
    """A row that is refused; code is one of `ROW_CODES`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        if code not in ROW_CODES:
            raise KeyError(f"{code} is not in ROW_CODES")
        self.code = code


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as read, or the error of reading it.

    number counts from 1 over all files in order; place is 'file:line' or 'file, row n' for people.
    """

    number: int
    place: str
    value: dict[str, Any] | None = None
    error: RowError | None = None


def text_of(value: Any, what: str) -> str:
    """The value as text that says something.

    Raises:
        RowError: MissingColumn, WrongType, EmptyContent or NotUTF8.
    """
    if value is None:
        raise RowError("MissingColumn", f"{what} is missing")
    if not isinstance(value, str):
        raise RowError("WrongType", f"{what} is {type_name(value)}, not text")
    if not value.strip():
        raise RowError("EmptyContent", f"{what} is empty")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RowError("NotUTF8", f"{what} is not UTF-8 text") from None
    return value


def optional_text(value: Any, what: str) -> str | None:
    """As `text_of`, but absent, null or empty is None."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return text_of(value, what)


def type_name(value: Any) -> str:
    """The JSON name of a value's type."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")
