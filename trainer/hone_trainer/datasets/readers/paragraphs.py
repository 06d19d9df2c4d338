"""Rows of a text file: a row per paragraph."""

from __future__ import annotations

from collections.abc import Iterator

from hone_trainer.datasets.readers.items import MAX_ROW_BYTES, Item, Lines, lines
from hone_trainer.datasets.readers.rows import RowError


def rows(stream: Lines) -> Iterator[Item]:
    """Lines up to a blank one, each time."""
    block: list[bytes] = []
    start = 1
    for line, data in lines(stream):
        if isinstance(data, RowError):
            yield Item(f":{line}", error=data)
        elif data.strip():
            start = start if block else line
            block.append(data)
            if sum(map(len, block)) < MAX_ROW_BYTES:
                continue
        if block:
            yield item_of_text(f":{start}", b"".join(block))
            block = []
    if block:
        yield item_of_text(f":{start}", b"".join(block))


def item_of_text(where: str, data: bytes) -> Item:
    """The row that is this text."""
    return Item(where, {"text": data.decode("utf-8", "surrogateescape").replace("\r\n", "\n").strip("\n")})
