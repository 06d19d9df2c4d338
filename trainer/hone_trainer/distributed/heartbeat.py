"""What a rank shows of itself while it trains: a few bytes that the process which watches it reads at any time.

They are in memory that both map, so that a beat costs no system call, and is readable while the rank is stopped.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_FORM = struct.Struct("<qqdq")
_NAME = "beat-{}"


@dataclass(frozen=True)
class Beat:
    """The newest sign of life of a rank."""

    number: int
    """Grows with each; 0 before the first."""
    step: int
    """The last optimiser step that is done."""
    limit: float
    """Seconds within which the next sign must come; 0: no limit."""
    process: int
    """Process id."""


class Heartbeat:
    """Writes and reads the signs of life of one rank."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory, self._number = memory, 0

    @classmethod
    def private(cls) -> Heartbeat:
        """For a rank that is watched by a thread of its own process."""
        return cls(mmap.mmap(-1, _FORM.size))

    @classmethod
    def create(cls, folder: Path, rank: int) -> Heartbeat:
        """For a rank that its launcher watches."""
        temporary = folder / f".{_NAME.format(rank)}"
        temporary.write_bytes(bytes(_FORM.size))
        heart = cls._map(temporary)
        heart.beat(0, 0.0)
        temporary.rename(folder / _NAME.format(rank))
        return heart

    @classmethod
    def ranks(cls, folder: Path) -> dict[int, Heartbeat]:
        """Those of the ranks that have started, by rank."""
        files = {int(file.name.removeprefix(_NAME.format(""))): file for file in folder.glob(_NAME.format("*"))}
        return {rank: cls._map(file) for rank, file in sorted(files.items())}

    @classmethod
    def _map(cls, file: Path) -> Heartbeat:
        with open(file, "r+b") as opened:
            return cls(mmap.mmap(opened.fileno(), _FORM.size))

    def beat(self, step: int, limit: float) -> None:
        """A sign of life.

        Args:
            limit: seconds until the next one at most; 0: no limit.
        """
        self._number += 1
        _FORM.pack_into(self._memory, 0, self._number, step, limit, os.getpid())

    def again(self) -> None:
        """Repeat the sign of life during work that takes long."""
        last = self.last()
        self.beat(last.step, last.limit)

    def last(self) -> Beat:
        """The newest sign."""
        return Beat(*_FORM.unpack_from(self._memory, 0))
