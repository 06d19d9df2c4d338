"""A file of JSON Lines in pieces that can be read apart, with the numbers of their lines."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer.encoding.split_file import parsed
from hone_trainer.errors import DataError, StoreError

LEAST, MOST = 2**19, 2 * 2**20
"""Bytes of a chunk, to the end of a line. Its examples are in memory at once: about 40 MiB for the most."""
_SHARES = 64
"""Chunks of a file where their size allows it, so that no worker waits long for another one's last chunk."""


@dataclass(frozen=True)
class Chunk:
    """Whole lines of a file."""

    start: int
    """First byte."""
    end: int
    line: int
    """Number of its first line, from 1."""
    lines: int


def chunks(path: Path, size: int | None = None) -> list[Chunk]:
    """The chunks of a file, in their order. They depend on the file alone, not on who reads them.

    Args:
        size: bytes of a chunk; None: by the size of the file.

    Raises:
        StoreError: StorageError, when the file cannot be read.
    """
    parts: list[Chunk] = []
    start, line = 0, 1
    with _naming(path), open(path, "rb") as file:
        size = size or min(MOST, max(LEAST, path.stat().st_size // _SHARES))
        while block := file.read(size):
            block += file.readline() if not block.endswith(b"\n") else b""
            # As in text mode, \r and \r\n end a line as well.
            lines = block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")
            lines += not block.endswith((b"\n", b"\r"))
            parts.append(Chunk(start, start + len(block), line, lines))
            start, line = start + len(block), line + lines
    return parts


def records(path: Path, chunk: Chunk) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line from 1, row) of a chunk.

    Raises:
        DataError: InvalidRow.
        StoreError: StorageError, when the file cannot be read.
    """
    text, problem = _decoded(_block(path, chunk))
    number = chunk.line - 1
    for line in io.StringIO(text, newline=None):
        number += 1
        yield number, parsed(line, path, number)
    if problem is not None:
        raise DataError(FailureCode.INVALID_ROW, f"{path}, after line {number}: not UTF-8: {problem}")


def _block(path: Path, chunk: Chunk) -> bytes:
    with _naming(path, f", lines {chunk.line} to {chunk.line + chunk.lines - 1}"), open(path, "rb") as file:
        file.seek(chunk.start)
        return file.read(chunk.end - chunk.start)


@contextmanager
def _naming(path: Path, lines: str = "") -> Iterator[None]:
    """An error of the disk is one of this file: the system names no file when it cannot read on."""
    try:
        yield
    except OSError as error:
        message = f"{path}{lines}: cannot be read: {error.strerror}"
        raise StoreError(FailureCode.STORAGE_ERROR, message) from None


def _decoded(block: bytes) -> tuple[str, UnicodeDecodeError | None]:
    """The text, up to the line that is not UTF-8."""
    try:
        return block.decode(), None
    except UnicodeDecodeError as error:
        good = block[: error.start]
        return good[: max(good.rfind(b"\n"), good.rfind(b"\r")) + 1].decode(), error
