"""Rows of CSV and TSV files (RFC 4180): a header, then a record a row; quoted fields may hold line ends.

A quote that is not closed swallows the records after it. Where that is seen, how many rows there are is unknown, and
the file ends as broken, at the line where the quote opened.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from functools import partial
from itertools import chain

from hone_trainer.datasets.readers.items import MAX_ROW_BYTES, Item, Lines, broken, too_large
from hone_trainer.datasets.readers.rows import RowError

_SWALLOWED_LINES = {"\t": 1}
_MANY_LINES, _LOOK_LIKE_ROWS = 10, 0.9
"""If a field has this many lines, and this share of them has the fields of a row, the field is rows that a quote
swallowed. Texts hardly ever contain tabs, so a single line is enough."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_QUOTES = 'write quotes inside a field twice ("")'


class _TooLargeError(Exception):
    """A line over the limit was skipped; hidden: a quote that it opened hides what follows."""

    def __init__(self, hidden: bool) -> None:
        super().__init__()
        self.hidden = hidden


class _RecordLines:
    """The lines of a stream as text; those of the current record are kept."""

    def __init__(self, stream: Lines) -> None:
        self._stream, self.number, self._size = stream, 0, 0
        self.record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        data = self._stream.readline(MAX_ROW_BYTES + 1)
        if not data:
            raise StopIteration
        self.number += 1
        self._size += len(data)
        if self._size > MAX_ROW_BYTES:
            raise _TooLargeError(hidden=self._skip(data) or bool(self.record))
        # Bytes that are not UTF-8 become lone surrogates here, which `text_of` refuses row by row.
        self.record.append(data.decode("utf-8", "surrogateescape"))
        return self.record[-1]

    def begin(self) -> int:
        """Begin a record; gives the number of its first line."""
        self.record, self._size = [], 0
        return self.number + 1

    def _skip(self, data: bytes) -> bool:
        """Read on to the end of the line; gives whether a quote stays open."""
        quotes = data.count(b'"')
        while data and not data.endswith(b"\n"):
            data = self._stream.readline(MAX_ROW_BYTES)
            quotes += data.count(b'"')
        return quotes % 2 == 1


class _Table:
    """Records as objects by the header's names, which the first record has; first: the next line."""

    def __init__(self, lines: _RecordLines, delimiter: str, first: str) -> None:
        self._lines, self.delimiter, self.header = lines, delimiter, list[str]()
        self._reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        self._start = lines.number
        self.has_ended = False

    def __iter__(self) -> Iterator[Item]:
        while not self.has_ended:
            yield from self.next()

    def next(self) -> Iterator[Item]:
        """The next record: a row, or none for the header, a blank line, and the end."""
        item = _record(self._reader, self._lines, self._start, self.header, self.delimiter)
        if isinstance(item, Item):
            yield item
        self.has_ended = item is None or (
            isinstance(item, Item) and item.error is not None and item.error.code == "BrokenFile"
        )
        self._start = self._lines.begin()


def rows(stream: Lines, delimiter: str = ",") -> Iterator[Item]:
    """Records as objects by the header's names."""
    opened = _opened(stream, delimiter)
    return iter([opened] if isinstance(opened, Item) else opened)


tab_separated = partial(rows, delimiter="\t")


def _opened(stream: Lines, delimiter: str) -> _Table | Item:
    """The table, or why its header cannot be read."""
    csv.field_size_limit(MAX_ROW_BYTES)
    lines = _RecordLines(stream)
    try:
        first = next((line for line in lines if line.strip()), "")
    except _TooLargeError:
        return broken(":1", f"the header is over {MAX_ROW_BYTES} bytes")
    if first.lower().startswith("sep=") and len(first.strip()) == 5:  # spreadsheets declare the delimiter like this
        delimiter, first = first[4], next(lines, "")
    else:
        unquoted = _QUOTED.sub("", first)
        if delimiter not in unquoted:  # `;` is the comma of half of Europe
            delimiter = next((mark for mark in ";\t" if mark in unquoted), delimiter)
    return _Table(lines, delimiter, first)


def _record(
    reader: Iterator[list[str]], lines: _RecordLines, start: int, header: list[str], delimiter: str
) -> Item | bool | None:
    """The next record as an item; None at the end, False for one without a row: the header, or a blank line."""
    where = f":{start}"
    try:
        fields = next(reader)
    except StopIteration:
        return None
    except _TooLargeError as error:
        return (
            broken(where, f"the record is over {MAX_ROW_BYTES} bytes, {_QUOTES}")
            if error.hidden
            else too_large(where, "the line")
        )
    except csv.Error as error:
        literal = lines.record[-1].rstrip("\r\n").split("\t") if delimiter == "\t" and header else []
        if len(lines.record) == 1 and len(literal) == len(header) > 0 and "end of data" not in str(error):
            fields = literal  # most tools that write TSV quote nothing
        else:
            return _broken(error, start, lines, header)
    if not fields:
        return False
    if not header:
        header.extend(name.strip() for name in fields)
        repeated = sorted({name for name in header if header.count(name) > 1})
        return broken(where, f"the header names {', '.join(repeated)[:100]!r} more than once") if repeated else False
    if [name.strip().removeprefix("\ufeff") for name in fields] == header:
        return Item(where, error=RowError("BrokenCsv", "the header again, as where several files are one: remove it"))
    if _swallows(lines.record, delimiter, len(header)):
        held = len(lines.record) - 1
        return broken(
            where, f"the quote that opens here holds {held} lines that look like rows: it is not closed; {_QUOTES}"
        )
    if len(fields) != len(header):
        return Item(where, error=RowError("BrokenCsv", f"{len(fields)} fields, the header has {len(header)}"))
    return Item(where, dict(zip(header, fields, strict=True)))


def _broken(error: csv.Error, start: int, lines: _RecordLines, header: list[str]) -> Item:
    """A record that cannot be read: broken is the row where it is one line, else the file."""
    where, reason = f":{start}", str(error)
    if "end of data" in reason:
        return broken(
            where, f"the quote that opens in the record of line {start} is not closed to the end of the file; {_QUOTES}"
        )
    if len(lines.record) > 1:
        return broken(
            where,
            f"the quote that opens in the record of line {start} ends in the middle of line {lines.number}"
            f" ({reason}): the rows between are unknown; {_QUOTES}",
        )
    if "new-line character" in reason:
        reason = "the line has a carriage return in it: end lines with \\n or \\r\\n (tr '\\r' '\\n')"
    if not header:
        return broken(where, f"the header cannot be read: {reason}")
    return Item(where, error=RowError("BrokenCsv", reason))


def _swallows(record: list[str], delimiter: str, columns: int) -> bool:
    """Whether the lines within a record look like rows of their own."""
    inner = record[1:-1] if delimiter != "\t" else record[1:]
    if columns < 2 or len(inner) < _SWALLOWED_LINES.get(delimiter, _MANY_LINES):
        return False
    alike = sum(line.count(delimiter) == columns - 1 for line in inner)
    return alike >= _LOOK_LIKE_ROWS * len(inner)
