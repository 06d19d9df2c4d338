"""What the chunks of a split gave, each as a file of a `PartFolder`. It begins with a line of JSON."""

from __future__ import annotations

import json
import shutil
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


def size_of(path: Path) -> PartSize:
    """Of a part. It is read whole when it is used."""
    with open(path, "rb") as file, suppress(ValueError, KeyError):
        body = json.loads(file.readline())
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


def packed(part: Part) -> bytes:
    """The content of its file."""
    body = {
        **{"size": len(part.rows), "counts": mapped.counts_to(part.counts)},
        **{"hasMasks": part.has_masks, "problem": part.problem, "failure": part.failure},
    }
    numbers = [np.asarray(array, np.int32).tobytes() for array in (part.lengths, part.tokens, part.trained)]
    return b"".join([json.dumps(body).encode(), b"\n", part.rows, *numbers])


def unpacked(content: bytes) -> Part:
    """The part of a file."""
    line, _, rest = content.partition(b"\n")
    body = json.loads(line)
    lengths, tokens, trained = np.frombuffer(rest[body["size"] :], np.int32).reshape(len(_NUMBERS), -1)
    failure = body["failure"] and (FailureCode(body["failure"][0]), body["failure"][1])
    return Part(
        *(mapped.counts_from(body["counts"]), rest[: body["size"]], lengths, tokens, trained),
        *(body["hasMasks"], body["problem"], failure),
    )
