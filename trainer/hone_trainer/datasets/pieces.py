"""Files in pieces that workers read by themselves: ranges of lines, row groups, and whole files.

Plain JSON Lines are divided by bytes, Parquet by row groups; any other file is read whole, and small files share a
piece. How files are divided depends on them alone, so rows, numbers and places are the same for any number of workers.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hone_trainer.datasets import columnar, read
from hone_trainer.datasets.cuts import RowBlock
from hone_trainer.datasets.items import MAX_ROW_BYTES, Item, lines
from hone_trainer.datasets.read import DataFile, named
from hone_trainer.datasets.rows import RawRow

BYTES = 2**20
"""Of a range of lines. Files that are not larger share a piece of about this size."""
FILES = 64
"""Of a piece, at most: to open a file takes as long as to check a row or more."""
GROUP_BYTES = 16 * 2**20
"""Unpacked bytes of the row groups of a piece; one group that is larger is a piece by itself."""


class Piece(NamedTuple):
    """What a worker reads at a time: whole files, or one part of a file."""

    files: list[DataFile]
    lines: tuple[int, int] | None = None
    """Those that begin in [begin, end) of the bytes of the file. Other than in the first piece, begin may be within a
    line."""
    groups: tuple[int, int] | None = None
    """Row groups [begin, end) of a Parquet file."""
    row: int = 0
    """Rows of the file in the row groups, or tables, before."""
    is_first: bool = True
    """Whether it begins its file."""
    is_small: bool = False
    """Whether it is of whole files that are together not larger than a range of lines."""
    data: bytes | None = None
    """The lines, for a worker that cannot read the file."""
    contents: list[bytes] | None = None
    """Of the files, for the same."""
    table: tuple[str, bytes] | None = None
    """The kind of the file, and an Arrow stream of rows that were read."""
    cut: RowBlock | None = None
    """Other rows, for a worker that cannot read the file."""
    unpacked: int = 0
    """Bytes of row groups that were read for it."""

    @property
    def is_whole(self) -> bool:
        """Whether it is of whole files."""
        return self.lines is None and self.groups is None and self.table is None and self.cut is None

    @property
    def may_be_last(self) -> bool:
        """Whether the file is not read on after a row of this piece that breaks it off."""
        return bool(self.groups or self.table or self.cut)

    @property
    def is_loaded(self) -> bool:
        """Whether it needs no file."""
        return not (self.data is None and self.contents is None and self.table is None and self.cut is None)

    def loaded(self) -> Piece:
        """The same piece with the bytes of its lines or files.

        Raises:
            StoreError: StorageError, naming a file that cannot be read.
        """
        return (
            self._replace(data=_block(self)) if self.lines else self._replace(contents=list(map(_content, self.files)))
        )


def pieces(files: Sequence[DataFile], max_bytes: int) -> Iterator[Piece]:
    """The files in pieces, in order; files are opened one after the other.

    Args:
        max_bytes: bound on the unpacked bytes of a file.

    Raises:
        SourceError: SourceTooLarge.
        StoreError: StorageError, naming a file that cannot be read.
    """
    few: list[DataFile] = []
    size = 0
    for file in files:
        with named(file):
            mine = file.size
        if few and (mine > BYTES or size + mine > BYTES or len(few) == FILES):
            yield Piece(few, is_small=True)
            few, size = [], 0
        if mine <= BYTES:
            few, size = [*few, file], size + mine
        else:
            yield from _of_large(file, mine, max_bytes)
    if few:
        yield Piece(few, is_small=True)


def _of_large(file: DataFile, size: int, max_bytes: int) -> Iterator[Piece]:
    start = read.start_of_lines(file)
    if start is not None and size <= max_bytes:
        for begin in range(start, size, BYTES):
            yield Piece([file], lines=(begin, min(begin + BYTES, size)), is_first=begin == start)
        return
    begin, row = 0, 0
    with named(file), file.open() as plain:
        groups = columnar.row_groups(plain, GROUP_BYTES)
    for end, rows in groups:
        yield Piece([file], groups=(begin, end), row=row, is_first=not begin)
        begin, row = end, row + rows
    if not begin:
        yield Piece([file])


class PieceRows:
    """The rows of a piece, with numbers from 1, and what is known after the last one.

    Iterating raises as `read.raw_rows`.
    """

    def __init__(self, piece: Piece, max_bytes: int) -> None:
        self._piece, self._max_bytes = piece, max_bytes
        self.lines = 0
        """Lines of a range."""
        self.unpacked = piece.unpacked
        """Bytes of row groups."""

    def __iter__(self) -> Iterator[RawRow]:
        piece = self._piece
        if piece.lines:
            return self._range(piece.files[0])
        if piece.table:
            return self._table(piece.files[0], *piece.table)
        if piece.cut:
            return _numbered(piece.files[0], piece.cut.items())
        if piece.groups:
            return self._groups(piece.files[0], piece.groups)
        if piece.contents is not None:
            return self._contents(piece.files, piece.contents)
        return read.raw_rows(piece.files, self._max_bytes)

    def _contents(self, files: Sequence[DataFile], contents: Sequence[bytes]) -> Iterator[RawRow]:
        """Rows of files that exist as bytes in memory, not on disk."""
        with tempfile.TemporaryDirectory(prefix="pieces-") as folder:
            written = [DataFile(Path(folder) / str(number), file.name) for number, file in enumerate(files)]
            for file, content in zip(written, contents, strict=True):
                file.path.write_bytes(content)
            yield from read.raw_rows(written, self._max_bytes)

    def _table(self, file: DataFile, kind: str, data: bytes) -> Iterator[RawRow]:
        table = columnar.table_of_bytes(kind, self._piece.row + 1, data)
        return _numbered(file, read.items_of_tables(file, [table]))

    def _range(self, file: DataFile) -> Iterator[RawRow]:
        """Rows whose place is yet without the line, which `at` has."""
        block = _block(self._piece) if self._piece.data is None else self._piece.data
        number = 0
        for self.lines, data in lines(io.BytesIO(block)):
            if (item := read.item_of_line(self.lines, data)) is not None:
                number += 1
                yield read.raw_row(number, file.name, item, at=self.lines)

    def _groups(self, file: DataFile, groups: tuple[int, int]) -> Iterator[RawRow]:
        bound = columnar.UnpackedBound(self._max_bytes)
        yield from _numbered(file, read.items_of_groups(file, bound, groups, self._piece.row))
        self.unpacked = self._max_bytes - bound.left


def _numbered(file: DataFile, items: Iterable[Item]) -> Iterator[RawRow]:
    for number, item in enumerate(items, 1):
        yield read.raw_row(number, f"{file.name}{item.where}", item)


def _content(file: DataFile) -> bytes:
    with named(file), file.open() as plain:
        return plain.read()


def _block(piece: Piece) -> bytes:
    """The bytes of the lines that begin in the range, the last one to its end, or to where it is too large."""
    assert piece.lines
    begin, end = piece.lines
    with named(piece.files[0]), piece.files[0].open(end) as file:
        if not piece.is_first:
            file.seek(begin - 1)
            begin += len(skipped := file.readline(end - begin + 1)) - 1
            if begin == end or not skipped.endswith(b"\n"):
                return b""  # no line begins here
        file.seek(begin)
        block = file.read(end - begin)
        return block if block.endswith(b"\n") else block + file.readline(MAX_ROW_BYTES + 1)
