"""Files packed by gzip, zstd, bzip2 or xz, known by their first bytes: one stream of unpacked bytes, bounded."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from hone_api.words.failures import FailureCode
from hone_trainer.errors import SourceError

SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
GZIP, ZSTD, BZIP2, XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"
Stream: TypeAlias = "io.BufferedReader[Any]"
_COPY = 2**20
_XZ_MEMORY = 256 * 2**20
"""Most memory of a dictionary of xz; the largest preset (-9) takes 65 MiB."""


class DamagedStreamError(Exception):
    """What was packed cannot be unpacked to its end."""


def unpacked(file: Stream, max_bytes: int, name: str) -> Stream:
    """The bytes of a file from its beginning, unpacked where it is packed.

    Raises:
        SourceError: SourceTooLarge when more than max_bytes come out.
        DamagedStreamError: while reading.
    """
    head = file.peek(6)[:6]
    if head.startswith(GZIP):
        inner, kind = cast(IO[bytes], gzip.GzipFile(fileobj=file)), "gzip"
    elif head.startswith(BZIP2):
        inner, kind = cast(IO[bytes], _Unpacker(file, bz2.BZ2Decompressor)), "bzip2"
    elif head.startswith(XZ):
        inner, kind = cast(IO[bytes], _Unpacker(file, _xz)), "xz"
    elif head.startswith(ZSTD):
        import pyarrow

        inner, kind = pyarrow.CompressedInputStream(file, "zstd"), "zstd"
    else:
        inner, kind = file, ""
    return io.BufferedReader(_BoundedStream(inner, max_bytes, name, kind))


@contextmanager
def seekable(stream: Stream, folder: Path) -> Iterator[IO[bytes]]:
    """The stream's bytes in a file of folder, for formats whose index is at their end."""
    with tempfile.TemporaryFile(dir=folder) as file:
        while data := stream.read(_COPY):
            file.write(data)
        file.seek(0)
        yield file


def base_name(name: str) -> str:
    """The lower-case name without the suffix of a packer."""
    lower = name.lower()
    for suffix in SUFFIXES:
        lower = lower.removesuffix(suffix)
    return lower


def is_packed(head: bytes) -> bool:
    """Whether a file that begins so is packed."""
    return head.startswith((GZIP, ZSTD, BZIP2, XZ))


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


class _Unpacker:
    """Streams of bzip2 or xz, one after another. What follows the last is an error: Python's own files skip it."""

    def __init__(self, file: IO[bytes], make: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> None:
        self._file, self._make, self._stream, self._rest = file, make, make(), b""

    def read(self, size: int) -> bytes:
        """Up to size bytes; none at the end.

        Raises:
            EOFError, OSError, lzma.LZMAError: the file is damaged.
        """
        while True:
            if self._stream.eof:
                self._rest = self._stream.unused_data or self._file.read(_COPY)
                if not self._rest:
                    return b""
                self._stream = self._make()
            elif self._stream.needs_input and not self._rest and not (data := self._file.read(_COPY)):
                raise EOFError("it ends early")
            elif self._stream.needs_input and not self._rest:
                self._rest = data
            piece, self._rest = self._stream.decompress(self._rest, size), b""
            if piece:
                return piece


class _BoundedStream(io.RawIOBase):
    """A stream that refuses to give more than so many bytes: gzip can unpack to a thousand times its size."""

    def __init__(self, inner: Any, max_bytes: int, name: str, kind: str) -> None:
        self._inner, self._left, self._name, self._kind = inner, max_bytes, name, kind

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, OSError) as error:
            if not self._kind:
                raise
            raise DamagedStreamError(f"the {self._kind} file is damaged: {error}"[:300]) from None
        self._left -= len(data)
        if self._left < 0:
            raise SourceError(FailureCode.SOURCE_TOO_LARGE, f"{self._name}: unpacked, it is over the limit")
        buffer[: len(data)] = data
        return len(data)
