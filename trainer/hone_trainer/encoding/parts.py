"""What the chunks of a split gave, each in a file of its own. A file that exists is done.

So any process makes any part, in any order, and an attempt makes those that are missing. A part begins with a line of
JSON. Its CRC-32, of the line and of what follows, finds what a node that crashed has not written, and what a disk has
changed: that part is made again.
"""

from __future__ import annotations

import json
import shutil
import uuid
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hone_api.words.failures import FailureCode
from hone_trainer.encoding import mapped
from hone_trainer.encoding.split_file import Counts
from hone_trainer.errors import DataError
from hone_trainer.store.arrays import save

_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Of an Arrow stream."""
_NUMBERS = (mapped.LENGTHS, mapped.TOKENS, mapped.TRAINED)


class PartSize(NamedTuple):
    """What is known of a part before it is read."""

    lines: int
    tokens: int
    is_bad: bool = False
    """Whether its rows end the work: no part after it is needed."""


@dataclass
class Part:
    """What a chunk gave. Arrays have a number for each row."""

    counts: Counts = field(default_factory=Counts)
    rows: bytes = b""
    """A stream of one Arrow batch; empty without a row."""
    lengths: Any = field(default_factory=lambda: np.zeros(0, np.int32))
    tokens: Any = field(default_factory=lambda: np.zeros(0, np.int32))
    trained: Any = field(default_factory=lambda: np.zeros(0, np.int32))
    has_masks: bool = False
    problem: str | None = None
    """Why the first row that the model cannot learn from is such a row."""
    failure: tuple[FailureCode, str] | None = None
    """Code and message of the row that ended the chunk."""

    @property
    def size(self) -> PartSize:
        """Its lines and tokens."""
        return PartSize(self.counts.lines, self.counts.tokens, self.failure is not None)

    def check(self) -> None:
        """Raises:
        DataError: what ended the chunk.
        """
        if self.failure is not None:
            raise DataError(*self.failure)


class Parts:
    """The folder of the parts.

    Args:
        identity: of the chunks and of how they are encoded, so that parts of another one are never taken.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.path = folder / identity[:32]
        self.path.mkdir(exist_ok=True)

    def indexes(self) -> set[int]:
        """Of the chunks whose part is there."""
        return {int(path.name) for path in self.path.iterdir() if path.name.isdecimal()}

    def has(self, index: int) -> bool:
        """Whether the part of this chunk is there."""
        return (self.path / str(index)).exists()

    def put(self, index: int, part: Part) -> None:
        """Write the part of a chunk; it is there as a whole or not at all."""
        unfinished = self.path / f"unfinished-{uuid.uuid4().hex}"
        try:
            unfinished.write_bytes(_packed(part))
            unfinished.rename(self.path / str(index))
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            raise

    def get(self, index: int) -> Part | None:
        """The part of a chunk; None where it is missing or not whole."""
        with suppress(FileNotFoundError):
            line, _, rest = (self.path / str(index)).read_bytes().partition(b"\n")
            return _unpacked(line, rest)
        return None

    def size(self, index: int) -> PartSize:
        """Of a part that is there. It is read whole when it is used."""
        with open(self.path / str(index), "rb") as file, suppress(ValueError, KeyError):
            body = json.loads(file.readline()[9:])
            counts = mapped.counts_from(body["counts"])
            return PartSize(counts.lines, counts.tokens, body["failure"] is not None)
        return PartSize(0, 0)


def write(files: Path, parts: Iterable[Part]) -> tuple[Counts, str | None]:
    """Write what the parts of a split have together into a new folder, unless they have no row.

    Returns:
        The counts of all parts, and the problem of the first one that has one.

    Raises:
        DataError: what ended a chunk.
    """
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir()
    total, problem, has_masks, numbers = Counts(), None, False, list[tuple[Any, Any, Any]]()
    with open(files / mapped.ROWS, "wb") as rows:
        for part in parts:
            part.check()
            if part.rows:
                after_schema = 8 + int.from_bytes(part.rows[4:8], "little")
                rows.write(part.rows[after_schema if numbers else 0 : -len(_END)])
                numbers.append((part.lengths, part.tokens, part.trained))
            total.add(part.counts)
            has_masks, problem = has_masks or part.has_masks, problem or part.problem
        rows.write(_END)
    if numbers:
        for name, arrays in zip(_NUMBERS, zip(*numbers, strict=True), strict=True):
            save(files / name, np.concatenate(arrays))
        longest_kept = max(int(lengths.max()) for lengths, _, _ in numbers)
        body = {**mapped.counts_to(total), "hasMasks": has_masks, "longestKept": longest_kept}
        (files / mapped.COUNTS).write_text(json.dumps(body) + "\n")
    return total, problem


def _packed(part: Part) -> bytes:
    body = {
        **{"size": len(part.rows), "counts": mapped.counts_to(part.counts)},
        **{"hasMasks": part.has_masks, "problem": part.problem, "failure": part.failure},
    }
    line = json.dumps(body).encode()
    numbers = [np.asarray(array, np.int32).tobytes() for array in (part.lengths, part.tokens, part.trained)]
    rest = b"".join([part.rows, *numbers])
    return b"%08x %s\n%s" % (_checksum(line, rest), line, rest)


def _unpacked(line: bytes, rest: bytes) -> Part | None:
    mark, _, text = line.partition(b" ")
    if mark != b"%08x" % _checksum(text, rest):
        return None
    body = json.loads(text)
    lengths, tokens, trained = np.frombuffer(rest[body["size"] :], np.int32).reshape(len(_NUMBERS), -1)
    failure = body["failure"] and (FailureCode(body["failure"][0]), body["failure"][1])
    return Part(
        *(mapped.counts_from(body["counts"]), rest[: body["size"]], lengths, tokens, trained),
        *(body["hasMasks"], body["problem"], failure),
    )


def _checksum(line: bytes, rest: bytes) -> int:
    return zlib.crc32(rest, zlib.crc32(line))
