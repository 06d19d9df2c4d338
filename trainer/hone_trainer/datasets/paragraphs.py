"""Rows of a text file: a row per paragraph."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

from hone_trainer.datasets.compression import Stream
from hone_trainer.datasets.cuts import Ahead
from hone_trainer.datasets.items import MAX_ROW_BYTES, Item, Lines, lines
from hone_trainer.datasets.rows import RowError

_LAST_BLANK_LINE = re.compile(rb".*\n[ \t\r\v\f]*\n", re.DOTALL)


class Paragraphs(NamedTuple):
    """Paragraphs up to a blank line, or to the end."""

    data: bytes
    before: int
    """Lines of the file before."""

    def items(self) -> Iterator[Item]:
        """The rows."""
        return rows(io.BytesIO(self.data), self.before)


def rows(stream: Lines, before: int = 0) -> Iterator[Item]:
    """Lines up to a blank one, each time."""
    block: list[bytes] = []
    start = 1
    for line, data in lines(stream):
        if isinstance(data, RowError):
            yield Item(f":{before + line}", error=data)
        elif data.strip():
            start = start if block else line
            block.append(data)
            if sum(map(len, block)) < MAX_ROW_BYTES:
                continue
        if block:
            yield item_of_text(f":{before + start}", b"".join(block))
            block = []
    if block:
        yield item_of_text(f":{before + start}", b"".join(block))


def blocks(stream: Stream, size: int) -> Iterator[Item | Paragraphs]:
    """The rows in blocks; once a paragraph is larger than a row may be, in items."""
    source, before, wanted = Ahead(stream), 0, size
    while wanted <= MAX_ROW_BYTES:
        if data := source.cut(_end, wanted):
            yield Paragraphs(data, before)
            before, wanted = before + data.count(b"\n"), size
        else:
            wanted *= 2
    yield from rows(source, before)


def item_of_text(where: str, data: bytes) -> Item:
    """The row that is this text."""
    return Item(where, {"text": data.decode("utf-8", "surrogateescape").replace("\r\n", "\n").strip("\n")})


def _end(kept: bytearray, size: int) -> int:
    blank = _LAST_BLANK_LINE.match(kept, 0, size)
    return blank.end() if blank else 0
