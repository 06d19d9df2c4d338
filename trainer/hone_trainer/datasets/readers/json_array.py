"""Rows of a file that is one JSON array, an element at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from hone_trainer.datasets.readers.compression import Stream
from hone_trainer.datasets.readers.items import MAX_ROW_BYTES, Item, broken
from hone_trainer.datasets.readers.rows import DECODER

_CHUNK = 2**16
_SPACE = " \t\r\n"
_UNREAD = "the rest of the file is not read"


class _TextStream:
    """The text of a stream from the current place on; grows as needed, and forgets what was read."""

    def __init__(self, stream: Stream) -> None:
        # Bytes that are not UTF-8 become lone surrogates, which are refused row by row.
        self._reader = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        self._text, self._at, self._ended = "", 0, False

    def next_character(self) -> str:
        """The next character that is not white space, which stays; empty at the end."""
        while True:
            while self._at < len(self._text):
                if (character := self._text[self._at]) not in _SPACE:
                    return character
                self._at += 1
            if not self._more(_CHUNK):
                return ""

    def skip(self) -> None:
        """Go past the character that `next_character` gave."""
        self._at += 1

    def value(self) -> Any:
        """The JSON value that begins here.

        Raises:
            ValueError: there is none, or it exceeds the limit; the message says which.
        """
        chunk = _CHUNK
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                reason = f"not JSON: {error}"
            else:
                if end < len(self._text) or self._ended:  # at the end of a chunk a number may go on in the next one
                    self._at = end
                    return value
                reason = ""
            if len(self._text) - self._at > MAX_ROW_BYTES:
                raise ValueError(f"the element is over {MAX_ROW_BYTES} bytes")
            if not self._more(chunk) and reason:
                raise ValueError(reason)
            chunk *= 2

    def _more(self, characters: int) -> bool:
        more = self._reader.read(characters)
        self._text, self._at, self._ended = self._text[self._at :] + more, 0, not more
        return bool(more)


def rows(stream: Stream) -> Iterator[Item]:
    """The elements of the array. After a mistake the rest of the file cannot be divided into rows: it ends as broken.

    Elements are separated by exactly one comma, and nothing but white space follows the array.
    """
    text, row = _TextStream(stream), 1
    text.next_character()
    text.skip()  # the bracket by which the array was recognised
    closed = text.next_character() == "]"
    while not closed:
        where = f", row {row}"
        text.next_character()
        try:
            yield Item(where, text.value())
        except ValueError as error:
            reason = str(error) if text.next_character() else "the array does not end"
            yield broken(where, f"{reason}; {_UNREAD}")
            return
        row += 1
        match text.next_character():
            case ",":
                text.skip()
            case "]":
                closed = True
            case "":
                yield broken(f", row {row}", "the array does not end")
                return
            case other:
                yield broken(f", row {row}", f"a comma is missing before {other!r}; {_UNREAD}")
                return
    text.skip()
    if rest := text.next_character():
        what = "another array" if rest == "[" else f"text ({rest!r})"
        yield broken(f", row {row}", f"{what} follows the end of the array; write one array, or JSON Lines")
