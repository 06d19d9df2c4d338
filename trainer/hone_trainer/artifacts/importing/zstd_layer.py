"""Layers packed by zstd, as bytes of a tar. tarfile of this Python unpacks gzip by itself, and no zstd."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer.datasets.readers.compression import ZSTD
from hone_trainer.errors import SourceError

_SKIPPABLE = b"\x2a\x4d\x18"
"""Of a frame without content after its first byte, 0x50 to 0x5f (RFC 8878, section 3.1.2): pzstd begins with one."""


def is_zstd(stream: io.BufferedReader[Any]) -> bool:
    """Whether the stream begins as zstd does; nothing is taken from it."""
    head = stream.peek(4)[:4]
    return head == ZSTD or (head[1:] == _SKIPPABLE and 0x50 <= head[0] <= 0x5F)


class ZstdFile(io.RawIOBase):
    """The unpacked bytes of a stream, at most `most`: zeros unpack to thirty thousand times their size.

    Reading raises SourceError SourceTooLarge, and tarfile.ReadError for damaged bytes.
    """

    def __init__(self, packed: io.BufferedReader[Any], most: int, what: str) -> None:
        import pyarrow

        self._inner = pyarrow.CompressedInputStream(packed, "zstd")
        self._left, self._most, self._what = most, most, what

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except OSError as error:
            if type(error) is not OSError:  # of the connection, which reads the packed bytes
                raise
            raise tarfile.ReadError(str(error)) from None
        if len(data) > self._left:
            words = f"{self._what}: more than {self._most} bytes unpacked from zstd"
            raise SourceError(FailureCode.SOURCE_TOO_LARGE, words)
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)
