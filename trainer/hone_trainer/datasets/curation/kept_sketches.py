"""Sketches of rows, kept until all rows are made: the next attempt takes them for as long as its rows are the same.

Near duplicates are found once all rows were checked, and sketches take longer than the checks. The file has those of
one batch after the other. Each entry has a hash of its rows and of all else that it depends on, and a checksum; from
the first one that does not fit on, they are cut off and made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy

from hone_trainer.datasets.curation.lsh import Sketches
from hone_trainer.datasets.spool import ValidRow
from hone_trainer.workers.parallel import Workers

_HEAD = struct.Struct("<16sIIII")
"""Hash; bands, sides and rows; CRC-32 of the numbers."""
_MOST_NUMBERS = 1024
"""Most bands and sides of a row: without a limit, a damaged head could ask for gigabytes."""
Batch = Sequence[ValidRow]


class KeptSketches:
    """The file.

    Args:
        identity: of what sketches depend on besides the rows.
        most: bytes of the file; the sketches of later rows are not kept.
    """

    def __init__(self, path: Path, identity: str, most: int) -> None:
        self._path, self._identity, self._most = path, identity, most
        self._is_full = False

    def map(
        self, sketch: Callable[[Batch], Sketches], every: Iterable[list[ValidRow]], workers: Workers
    ) -> Iterator[tuple[list[ValidRow], Sketches]]:
        """Each batch with its sketches, as `Workers.map`; those that are kept are not made."""
        rest = iter(every)
        file = self._opened()
        if file is None:
            yield from workers.map(sketch, rest)
            return
        with file:
            for batch in rest:
                end = file.tell()
                if (sketches := self._read(file, batch)) is None:
                    rest = itertools.chain([batch], rest)
                    file.seek(end)
                    break
                yield batch, sketches
            with suppress(OSError):
                file.truncate()
            for batch, sketches in workers.map(sketch, rest):
                self._write(file, batch, sketches)
                yield batch, sketches

    def _opened(self) -> IO[bytes] | None:
        """The file for this process alone; None if nothing can be kept."""
        with suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            file = open(self._path, "a+b", buffering=0)  # noqa: SIM115
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.seek(0)
                return file
            file.close()
        return None

    def _read(self, file: IO[bytes], batch: Batch) -> Sketches | None:
        """The sketches of this batch, if they come next."""
        with suppress(OSError, struct.error):
            key, bands, sides, count, checksum = _HEAD.unpack(file.read(_HEAD.size))
            if key == self._key(batch) and count == len(batch) and bands + sides <= _MOST_NUMBERS:
                data = file.read(8 * (bands + sides) * count)
                if zlib.crc32(data) == checksum:
                    numbers = numpy.frombuffer(data, numpy.uint64).reshape(bands + sides, count)
                    return Sketches(numbers[:bands], numbers[bands:])
        return None

    def _write(self, file: IO[bytes], batch: Batch, sketches: Sketches) -> None:
        """Keep the sketches of a batch. If that fails, keep nothing: the rows themselves need the room."""
        if self._is_full:
            return
        data = b"".join(part.astype(numpy.uint64).tobytes() for part in sketches)
        (bands, count), sides = sketches.bands.shape, len(sketches.sides)
        entry = _HEAD.pack(self._key(batch), bands, sides, count, zlib.crc32(data)) + data
        if file.tell() + len(entry) > self._most:
            self._is_full = True
            return
        with suppress(OSError):
            if file.write(entry) == len(entry):  # less, where the disk is nearly full
                return
        self._is_full = True
        with suppress(OSError):
            file.truncate(0)

    def _key(self, batch: Batch) -> bytes:
        digest = hashlib.blake2b(self._identity.encode(), digest_size=16)
        for row in batch:
            digest.update(b"\n" + row.line.encode())
        return digest.digest()
