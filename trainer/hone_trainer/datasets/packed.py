"""Files packed by gzip or zstd, known by their first bytes: one stream of unpacked bytes, bounded."""

from __future__ import annotations

import gzip
import io
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from hone_trainer.errors import SourceError

SUFFIXES = (".gz", ".zst")
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
Stream: TypeAlias = "io.BufferedReader[Any]"
_COPY = 2**20


class DamagedError(Exception):
    """What was packed cannot be unpacked to its end."""


@contextmanager
def unpacked(path: Path, max_bytes: int, name: str) -> Iterator[Stream]:
    """The bytes of a file, unpacked where it is packed.

    Raises:
        SourceError: SourceTooLarge when more than max_bytes come out.
        DamagedError: while reading.
    """
    with open(path, "rb") as file:
        head = file.read(4)
        file.seek(0)
        if head.startswith(GZIP):
            inner, kind = cast(IO[bytes], gzip.GzipFile(fileobj=file)), "gzip"
        elif head == ZSTD:
            import pyarrow

            inner, kind = pyarrow.CompressedInputStream(file, "zstd"), "zstd"
        else:
            inner, kind = file, ""
        yield io.BufferedReader(_Bounded(inner, max_bytes, name, kind))


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


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than so many bytes: gzip can unpack to a thousand times its size."""

    def __init__(self, inner: Any, max_bytes: int, name: str, kind: str) -> None:
        self._inner, self._left, self._name, self._kind = inner, max_bytes, name, kind

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
            if not self._kind:
                raise
            raise DamagedError(f"the {self._kind} file is damaged: {error}"[:300]) from None
        self._left -= len(data)
        if self._left < 0:
            raise SourceError("SourceTooLarge", f"{self._name}: unpacked, it is over the limit")
        buffer[: len(data)] = data
        return len(data)
