"""A file that comes into a volume in pieces: what is there, and when it is complete."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from hone_cli.errors import AGAIN, FULL, CommandError

PATH = "/upload"
PIECE = 4 * 2**20
"""Bytes of a request. The client of the API server keeps what it has not sent yet in memory, so it is given no more."""


class Received(BaseModel):
    """How much of the file is there."""

    size: int
    complete: bool = False


@dataclass(frozen=True)
class Incoming:
    """The file that is expected."""

    folder: Path
    name: str
    size: int
    digest: str
    """SHA-256, hexadecimal."""

    @property
    def part(self) -> Path:
        """What has come so far: another content has another part, so nothing is mixed."""
        return self.folder / f".{self.name[-80:]}.{self.digest[:16]}.part"

    def begin(self, *, replace: bool) -> Received:
        """What is there.

        Raises:
            CommandError: another file of this name, or no room.
        """
        target = self.folder / self.name
        if target.is_file():
            if target.stat().st_size == self.size and sha256_of(target) == self.digest:
                return Received(size=self.size, complete=True)
            if not replace:
                raise CommandError(f"the volume has another file {self.name}: choose another name, or use --replace")
        self.part.touch()
        size = self.part.stat().st_size
        if size > self.size:
            self.part.unlink()
            self.part.touch()
            size = 0
        free = shutil.disk_usage(self.folder).free
        if free < self.size - size:
            raise CommandError(
                f"the volume has room for {free:,} bytes, but {self.size - size:,} more are needed: make room in it, "
                "or use a new claim with a larger --size"
            )
        return Received(size=size)

    def append(self, offset: int, piece: bytes) -> Received:
        """Add a piece at the end; one that came before is left out.

        Raises:
            CommandError: the volume is full; what came before is kept.
        """
        with open(self.part, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if offset == end and end + len(piece) <= self.size:
                try:
                    file.write(piece)
                    file.flush()
                except OSError as error:
                    file.truncate(end)
                    if error.errno not in FULL:
                        raise
                    words = f"the volume is full after {end:,} of {self.size:,} bytes: make room in it, and {AGAIN}"
                    raise CommandError(words) from None
        return Received(size=self.part.stat().st_size)

    def finish(self) -> Received:
        """Give the file its name, if it is the one that was sent.

        Raises:
            CommandError: it is not; what came is removed.
        """
        target = self.folder / self.name
        if not self.part.exists() and target.is_file() and sha256_of(target) == self.digest:
            return Received(size=self.size, complete=True)  # the answer to an earlier request did not arrive
        if sha256_of(self.part) != self.digest:
            self.part.unlink()
            raise CommandError(f"the file arrived damaged: its SHA-256 differs. Upload {self.name} again")
        with open(self.part, "rb") as file:
            os.fsync(file.fileno())
        self.part.replace(target)
        return Received(size=self.size, complete=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
