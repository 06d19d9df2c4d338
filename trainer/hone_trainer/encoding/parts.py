"""The parts of a split as they are encoded, in a folder: an attempt goes on from what an earlier one finished.

`files` becomes the encoded split. `journal` has a line of JSON for each part that is whole in `files/rows.arrow`, and
`numbers` the numbers of its rows. What was written after the last whole part is cut off. CRC-32, of the part and of the
line itself, finds what a node that crashed has not written, and what a disk has changed.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hone_api.words.failures import FailureCode
from hone_trainer.encoding import mapped
from hone_trainer.encoding.split_file import Counts
from hone_trainer.errors import DataError, TrainerError
from hone_trainer.store.arrays import save

_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Of an Arrow stream."""
_NUMBERS = (mapped.LENGTHS, mapped.TOKENS, mapped.TRAINED)


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
    failure: tuple[type[TrainerError], FailureCode, str] | None = None
    """What ended the chunk: kind, code and message. An error of ours is not pickled."""

    def check(self) -> None:
        """Raises:
        DataError, TrainerError: what ended the chunk.
        """
        if self.failure is not None:
            kind, code, message = self.failure
            raise DataError(code, message) if issubclass(kind, DataError) else TrainerError(code, message)


class Parts:
    """The folder.

    Args:
        identity: of the chunks and of how they are encoded. Parts of another identity are removed.
    """

    def __init__(self, folder: Path, identity: str = "") -> None:
        self.files = folder / "files"
        self.files.mkdir(exist_ok=True)
        self._rows, self._numbers, self._journal = self.files / mapped.ROWS, folder / "numbers", folder / "journal"
        self.finished = 0
        """Chunks that an earlier attempt encoded."""
        self.kept = Part()
        """What they gave together, without the rows."""
        self._size = 0
        """Bytes of `rows.arrow` up to the end of the last part."""
        self._resume(identity)

    def added(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Each part without its rows, once it is in the folder.

        Raises:
            DataError, TrainerError: what ended a chunk.
        """
        with open(self._rows, "ab") as rows, open(self._numbers, "ab") as numbers, open(self._journal, "ab") as journal:
            for part in parts:
                part.check()
                content, of_rows = self._message(part.rows), _bytes(part)
                # The line of the journal is written last: a killed process leaves what it wrote before.
                for file, data in (
                    (rows, content),
                    (numbers, of_rows),
                    (journal, _line(part, len(content), _checksum(content, of_rows))),
                ):
                    file.write(data)
                    file.flush()
                self._size += len(content)
                yield replace(part, rows=b"")

    def close(self, total: Counts, has_masks: bool, numbers: list[tuple[Any, Any, Any]]) -> None:
        """Write what a split has besides its rows.

        Args:
            numbers: lengths, tokens and trained tokens of the rows of each part.
        """
        with open(self._rows, "ab") as rows:
            rows.write(_END)
        for name, arrays in zip(_NUMBERS, zip(*numbers, strict=True), strict=True):
            save(self.files / name, np.concatenate(arrays))
        longest_kept = max(int(lengths.max()) for lengths, _, _ in numbers)
        body = {**mapped.counts_to(total), "hasMasks": has_masks, "longestKept": longest_kept}
        (self.files / mapped.COUNTS).write_text(json.dumps(body) + "\n")

    def _message(self, stream: bytes) -> bytes:
        """The batch of a stream; the first one with the schema before it."""
        after_schema = 8 + int.from_bytes(stream[4:8], "little")
        return stream[after_schema if self._size else 0 : -len(_END)]

    def _resume(self, identity: str) -> None:
        """Read the journal, and cut the files after the last part that is whole. What else is there goes."""
        for other in self.files.iterdir():
            if other.name != mapped.ROWS:
                other.unlink()
        head, parts = json.dumps(identity).encode() + b"\n", list[Any]()
        with (
            open(self._journal, "ab+") as journal,
            open(self._rows, "ab+") as rows,
            open(self._numbers, "ab+") as numbers,
        ):
            files = (journal, rows, numbers)
            for file in files:
                file.seek(0)
            is_same = journal.readline() == head
            ends = [len(head) if is_same else 0, 0, 0]
            while is_same and (part := _read(journal.readline(), rows, numbers)):
                self.kept.counts.add(part.counts)
                self.kept.has_masks |= part.has_masks
                self.kept.problem = self.kept.problem or part.problem
                parts.append((part.lengths, part.tokens, part.trained))
                self.finished, ends = self.finished + 1, [file.tell() for file in files]
            for file, end in zip(files, ends, strict=True):
                if file.seek(0, os.SEEK_END) > end:
                    file.truncate(end)
            if not is_same:
                journal.write(head)
        self._size = ends[1]
        if parts:
            self.kept.lengths, self.kept.tokens, self.kept.trained = map(np.concatenate, zip(*parts, strict=True))


def _line(part: Part, size: int, checksum: int) -> bytes:
    body = {
        **{"size": size, "rows": len(part.lengths), "crc": checksum, "counts": mapped.counts_to(part.counts)},
        **{"hasMasks": part.has_masks, "problem": part.problem},
    }
    text = json.dumps(body).encode() + b"\n"
    return _mark(text) + b" " + text


def _read(line: bytes, rows: Any, numbers: Any) -> Part | None:
    """The part of a line without its rows; None where it is not whole, and after the last one."""
    mark, _, text = line.partition(b" ")
    if mark != _mark(text):
        return None
    body = json.loads(text)
    content, of_rows = rows.read(body["size"]), numbers.read(len(_NUMBERS) * 4 * body["rows"])
    if _checksum(content, of_rows) != body["crc"]:
        return None
    lengths, tokens, trained = np.frombuffer(of_rows, np.int32).reshape(len(_NUMBERS), -1)
    counts, masks, problem = mapped.counts_from(body["counts"]), body["hasMasks"], body["problem"]
    return Part(counts, b"", lengths, tokens, trained, has_masks=masks, problem=problem)


def _mark(text: bytes) -> bytes:
    """What the line begins with: a line that was changed, or ends early, has another one."""
    return b"%08x" % zlib.crc32(text)


def _bytes(part: Part) -> bytes:
    return b"".join(np.asarray(array, np.int32).tobytes() for array in (part.lengths, part.tokens, part.trained))


def _checksum(content: bytes, numbers: bytes) -> int:
    return zlib.crc32(numbers, zlib.crc32(content))
