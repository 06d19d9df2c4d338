"""A file in blocks of bytes, which workers parse into rows: the process that reads the file only finds where to cut.

A block is cut only where it is certain that the rows before and after do not depend on each other.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Protocol

from hone_trainer.datasets import compression
from hone_trainer.datasets.compression import Stream
from hone_trainer.datasets.items import Item


class RowBlock(Protocol):
    """A block of whole rows; it is pickled."""

    @property
    def data(self) -> bytes:
        """The bytes."""

    def items(self) -> Iterator[Item]:
        """The rows, with their places in the file."""


class Ahead:
    """A stream whose bytes can be seen before they are read."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._kept, self._has_ended = stream, bytearray(), False
        self.read = 0
        """Bytes so far."""
        self._damage: compression.DamagedStreamError | None = None

    def readline(self, limit: int) -> bytes:
        """As that of a stream.

        Raises:
            DamagedStreamError: the line is not whole.
        """
        seen = 0
        while (newline := self._kept.find(b"\n", seen, limit)) < 0 and (seen := len(self._kept)) < limit:
            if not self._more():
                break
        if newline < 0 and len(self._kept) < limit and self._damage:
            raise self._damage
        return self._taken(newline + 1 if newline >= 0 else limit)

    def cut(self, end_of_rows: Callable[[bytearray, int], int], size: int) -> bytes:
        """The whole rows of the next `size` bytes; none if there is none that can be cut.

        Args:
            end_of_rows: gives the end of the whole rows of the first so many bytes.
        """
        while len(self._kept) < size and self._more():
            pass
        return self._taken(end_of_rows(self._kept, min(size, len(self._kept))))

    def _taken(self, end: int) -> bytes:
        data = bytes(self._kept[:end])
        del self._kept[:end]
        self.read += len(data)
        return data

    def _more(self) -> bool:
        """Read on; False at the end, and where the stream is damaged."""
        if self._has_ended:
            return False
        try:
            # As much at a time as `readline` of a stream gets: of a damaged one the same lines can be read.
            data = self._stream.read1(io.DEFAULT_BUFFER_SIZE)
        except compression.DamagedStreamError as error:
            self._damage, data = error, b""
        self._kept += data
        self._has_ended = not data
        return bool(data)
