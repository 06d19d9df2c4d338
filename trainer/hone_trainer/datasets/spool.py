"""Valid rows on their way to the splits, and where they wait on disk: in their order and by their index."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from hone_trainer.datasets.rows import Record


@dataclass(frozen=True)
class ValidRow:
    """A valid row: its number in the source, and its normalised record as canonical JSON.

    Rows of one group stay in one split; no group: the row is its own. label is its value of curation.balance.column,
    stratum that of splits.stratifyBy.
    """

    number: int
    line: str
    group: str = ""
    label: str = ""
    stratum: str = ""

    def __reduce__(self) -> tuple[Any, ...]:  # without the record
        return ValidRow, (self.number, self.line, self.group, self.label, self.stratum)

    @cached_property
    def record(self) -> Record:
        """The normalised record."""
        value: Record = json.loads(self.line)
        return value

    @property
    def group_key(self) -> str:
        """What must not cross splits."""
        return self.group or self.line


class Spool:
    """Append rows, then read them again; 8 bytes of memory a row. The file goes when the spool is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "w+b")  # noqa: SIM115
        self._offsets = array("Q")
        self._end = 0
        self._unflushed = False

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)  # where the work failed, its whole folder may be gone

    def __len__(self) -> int:
        return len(self._offsets)

    def append(self, row: ValidRow) -> None:
        """Add a row at the end."""
        # JSON escapes tabs and line ends, so that they can stand between fields and rows.
        keys = "\t".join(text and json.dumps(text) for text in (row.group, row.label, row.stratum))
        text = f"{row.number}\t{keys}\t{row.line}\n".encode()
        self._file.write(text)
        self._offsets.append(self._end)
        self._end += len(text)
        self._unflushed = True

    def __iter__(self) -> Iterator[ValidRow]:
        """All rows, in their order; the spool may be read by index meanwhile."""
        self._file.flush()
        with open(self._path, "rb") as lines:
            for line in lines:
                yield parsed(line)

    def __getitem__(self, index: int) -> ValidRow:
        """The row that was appended as number `index`, from 0."""
        return parsed(self.text(index))

    def number(self, index: int) -> int:
        """The number in the source of the same row."""
        return int(self.text(index).partition(b"\t")[0])

    def text(self, index: int) -> bytes:
        """The same row as the line of the file; see `parsed`."""
        if self._unflushed:
            self._file.flush()
            self._unflushed = False
        end = self._offsets[index + 1] if index + 1 < len(self._offsets) else self._end
        return os.pread(self._file.fileno(), end - self._offsets[index], self._offsets[index])


def parsed(text: bytes) -> ValidRow:
    """The row of one line of a spool."""
    number, group, label, stratum, line = text.decode().rstrip("\n").split("\t", 4)
    keys = (text and json.loads(text) for text in (group, label, stratum))
    return ValidRow(int(number), line, *keys)
