"""Checked rows of a source, kept until all rows are made: the next attempt reads only the pieces that are missing.

A file for each part of the source has the rows that its pieces gave, as a compressed Arrow stream. The file's name has
a hash of everything that these rows depend on, and a checksum of the file: it is renamed to it when it is complete. So
whatever is here under the name of a part is right, and what else is here goes.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from hone_trainer.datasets import stored_rows
from hone_trainer.datasets.checked import Checked, RefusedRow, Sent
from hone_trainer.datasets.pieces import Piece
from hone_trainer.datasets.shipping import Shipped
from hone_trainer.datasets.spool import ValidRow

BATCH_BYTES = 2**20
"""Of rows that are compressed together, about."""
_ROW_BYTES = 200
"""Of a row without its text, about."""
_COPY = 2**20
_NAME = re.compile(r"(?P<key>[0-9a-f]{32})-(?P<sum>[0-9a-f]{8})\.arrow")
_UNFINISHED = "unfinished"


class Journal:
    """The folder.

    Args:
        identity: of everything that the rows depend on besides their pieces.
        curated_bytes: what steps of the curation may keep besides.
    """

    def __init__(self, folder: Path, identity: str, curated_bytes: int) -> None:
        self._folder, self.identity, self.curated_bytes = folder, identity, curated_bytes
        folder.mkdir(exist_ok=True)
        self._kept = {match["key"]: path for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
        self._used: set[str] = set()
        self.is_full = False
        """Whether nothing more is kept: it could not be written."""

    def has(self, part: Sequence[Piece]) -> bool:
        """Whether the rows of a part are kept, and are what was written."""
        key = self._key(part)
        self._used.add(key)
        if (path := self._kept.get(key)) is None:
            return False
        with suppress(OSError):
            if f"{_checksum(path):08x}" == path.stem.partition("-")[2]:
                return True
            path.unlink()
        del self._kept[key]
        return False

    def items(self, part: Sequence[Piece]) -> Iterator[tuple[Shipped, Checked]]:
        """What `PieceCheck.checked` gave for a part that is kept, without what workers need."""
        return stored_rows.items(self._kept[self._key(part)])

    def writer(self, part: Sequence[Piece]) -> PartWriter:
        """What keeps a part."""
        return PartWriter(self, self._folder, self._key(part))

    def remove_others(self) -> None:
        """Remove what belongs to no part that `has` was asked for."""
        for path in self._folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is None or match["key"] not in self._used:
                path.unlink(missing_ok=True)

    def _key(self, part: Sequence[Piece]) -> str:
        about = [
            [[[file.name, file.version] for file in piece.files], piece.lines, piece.groups, piece.row, piece.is_first]
            for piece in part
        ]
        return hashlib.sha256(json.dumps([self.identity, about]).encode()).hexdigest()[:32]


class PartWriter:
    """Keeps the items of a part, or nothing if the file cannot be written."""

    def __init__(self, journal: Journal, folder: Path, key: str) -> None:
        self._journal, self._folder, self._key = journal, folder, key
        self._path = folder / _UNFINISHED
        self._file: _Summed | None = None

    def kept(self, item: Shipped, checked: Checked) -> Checked:
        """The item's rows, which are kept: at once where a worker has stored them, else while they pass."""
        if not isinstance(checked, Sent) or checked.stored is None:
            return _Passing(self, item, checked)
        stored = checked.stored
        self.attempt(lambda file: file.write(stored))
        return checked

    def attempt(self, write: Callable[[_Summed], object]) -> None:
        """Write to the file. If that fails, leave the room to the rows themselves."""
        if self._journal.is_full:
            return
        try:
            if self._file is None:
                self._file = _Summed(open(self._path, "wb"))  # noqa: SIM115
            write(self._file)
        except OSError:
            self._journal.is_full = True
            self.close()

    def finish(self) -> None:
        """All items were added."""
        if self._file is not None:
            self.attempt(self._rename)

    def _rename(self, file: _Summed) -> None:
        file.close()
        self._path.rename(self._folder / f"{self._key}-{file.sum:08x}.arrow")

    def close(self) -> None:
        """Remove what is not finished."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


class _Passing:
    """Rows of an item that are written while they pass."""

    def __init__(self, writer: PartWriter, item: Shipped, checked: Checked) -> None:
        self._writer, self._item, self._checked = writer, item, checked
        self._stream: stored_rows.RowStream | None = None

    def rows(self) -> Iterator[ValidRow | RefusedRow]:
        """As `Checked`."""
        waiting, size = list[ValidRow | RefusedRow](), 0
        for row in self._checked.rows():
            waiting.append(row)
            size += _ROW_BYTES + (len(row.line) if isinstance(row, ValidRow) else 0)
            if size >= BATCH_BYTES:
                self._writer.attempt(partial(self._write, waiting))
                waiting, size = [], 0
            yield row
        self._writer.attempt(lambda file: self._begun(file).close(waiting, self.lines, self.unpacked))

    def _write(self, rows: Sequence[ValidRow | RefusedRow], file: _Summed) -> None:
        self._begun(file).write(rows)

    def _begun(self, file: _Summed) -> stored_rows.RowStream:
        self._stream = self._stream or stored_rows.RowStream(file, self._item)
        return self._stream

    @property
    def lines(self) -> int:
        """As `Checked`."""
        return self._checked.lines

    @property
    def unpacked(self) -> int:
        """As `Checked`."""
        return self._checked.unpacked


def _checksum(path: Path) -> int:
    total = 0
    with open(path, "rb") as file:
        while data := file.read(_COPY):
            total = zlib.crc32(data, total)
    return total


class _Summed(io.RawIOBase):
    """A file that is written, and its checksum."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sum = file, 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.sum = zlib.crc32(data, self.sum)
        return self._file.write(data)

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        self._file.close()
        super().close()
