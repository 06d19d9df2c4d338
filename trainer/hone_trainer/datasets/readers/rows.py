"""A row on its way: raw, then a normalised record, or a reason why it is refused."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from hone_api.words.rowcodes import ROW_CODES

Record = dict[str, Any]
"""A normalised row: {messages: [{role, content}], tools}, {prompt, completion} or {text}."""


class RowError(ValueError):
    """A row that is refused; code is one of `ROW_CODES`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        if code not in ROW_CODES:
            raise KeyError(f"{code} is not in ROW_CODES")
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return RowError, (self.code, str(self))


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as read, or the error of reading it.

    number counts from 1 over all files in order; place is 'file:line' or 'file, row n' for people. A line of JSON may
    still be to parse (`read.parsed`): then value and error are None.

    Of a piece of a file, number counts in the piece, and `at` is the line in it that place is still without; 0: place
    is whole.
    """

    number: int
    place: str
    value: dict[str, Any] | None = None
    error: RowError | None = None
    line: bytes | None = None
    at: int = 0

    def __reduce__(self) -> tuple[Any, ...]:  # 4 times faster than that of a dataclass with slots
        return RawRow, (self.number, self.place, self.value, self.error, self.line, self.at)


def text_of(value: Any, what: str) -> str:
    """The value as text that is not empty.

    Raises:
        RowError: MissingColumn, WrongType, EmptyContent or NotUTF8.
    """
    if value is None:
        raise RowError("MissingColumn", f"{what} is missing")
    if not isinstance(value, str):
        raise RowError("WrongType", f"{what} is {type_name(value)}, not text")
    if not value.strip():
        raise RowError("EmptyContent", f"{what} is empty")
    if "\0" in value:
        raise RowError("NotUTF8", f"{what} holds a NUL character")
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


def strict_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: the text is not JSON, holds NaN or Infinity, gives a key twice, or nests too deep.
    """
    try:
        return DECODER.decode(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    except ValueError as error:
        if "int_max_str_digits" in str(error):
            raise ValueError("it has a whole number of over 4,300 digits: write it as a text") from None
        raise


def canonical(record: Record) -> str:
    """The record as one line of JSON, without its end.

    Raises:
        RowError: NotUTF8 or WrongType, for values deep inside that no text check has seen (tools, arguments).
    """
    try:
        line = _of_texts(record) or _ENCODER.encode(record)
        if not line.isascii():
            line.encode()
    except UnicodeEncodeError:
        raise RowError("NotUTF8", "the row holds half of a surrogate pair") from None
    except (TypeError, ValueError) as error:
        raise RowError("WrongType", f"the row has a value that JSON cannot represent: {error}"[:300]) from None
    return line


def _of_texts(record: Record) -> str | None:
    """The same line for a record that is texts alone, as most are, or turns of role and content; else None."""
    if all([type(value) is str for value in record.values()]):
        return f"{{{','.join([f'{_quoted(key)}:{_quoted(value)}' for key, value in record.items()])}}}"
    turns = record.get("messages")
    if len(record) == 1 and type(turns) is list:
        parts = []
        for turn in turns:
            if [*turn] != ["role", "content"] or type(turn["content"]) is not str:
                return None
            parts.append(f'{{"role":{_quoted(turn["role"])},"content":{_quoted(turn["content"])}}}')
        return f'{{"messages":[{",".join(parts)}]}}'
    return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 8259 leaves open which of equal keys counts: readers differ, so none is right."""
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in result if keys.count(key) > 1)[:40]!r} is given twice")
    return result


DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
"""Reads JSON alone: Python's own takes NaN, and the last of equal keys."""


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_quoted = json.encoder.encode_basestring
_WHOLE = re.compile(r"(-?\d+)\.0+")


def label_text(value: Any) -> str:
    """A label as text in small letters: 1, 1.0, "1" and "1.0" are one label, as CSV has no numbers."""
    text = str(value).strip().lower()
    return whole[1] if (whole := _WHOLE.fullmatch(text)) else text


def type_name(value: Any) -> str:
    """The JSON name of a value's type."""
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
        bytes: "bytes",
    }
    return names.get(type(value), f"a {type(value).__name__}")
