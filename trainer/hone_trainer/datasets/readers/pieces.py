"""Files in pieces that workers read by themselves: ranges of lines, row groups, and whole files.

Plain JSON Lines are divided by bytes, Parquet by row groups; any other file is read whole, and small files share a
piece. How files are divided depends on them alone, so rows, numbers and places are the same for any number of workers.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import IO, NamedTuple

from hone_trainer.datasets.readers import columnar, read
from hone_trainer.datasets.readers.items import MAX_ROW_BYTES, line_breaks, lines
from hone_trainer.datasets.readers.read import DataFile, named
from hone_trainer.datasets.readers.rows import RawRow

BYTES, MOST_BYTES, PIECES = 4 * 2**20, 64 * 2**20, 1000
"""Of a range of lines: at least and at most, and how many of them a source is to have. Files that are not larger share
a piece of about this size."""
FILES = 64
"""Of a piece, at most: to open a file takes as long as to check a row or more."""
GROUP_BYTES = 16 * 2**20
"""Unpacked bytes of the row groups of a piece; one group that is larger is a piece by itself."""

BLOCK_BYTES = 2 * 2**20
"""Of lines that are read at once."""
SMALL_BYTES = 64 * 2**10
"""Files below this size are read line by line: a block of its own takes longer."""


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


def pieces(files: Sequence[DataFile], max_bytes: int) -> Iterator[Piece]:
    """The files in pieces, in order; files are opened one after the other.

    Args:
        max_bytes: bound on the unpacked bytes of a file.

    Raises:
        SourceError: SourceTooLarge.
        StoreError: StorageError, naming a file that cannot be read.
    """
    sizes = []
    for file in files:
        with named(file):
            sizes.append(file.size)
    # A large source has large pieces: there are some thousands of them, whatever its size.
    size_of_piece = max(BYTES, min(MOST_BYTES, sum(sizes) // PIECES))
    most_files = max(FILES, len(files) // PIECES)
    few: list[DataFile] = []
    size = 0
    for file, mine in zip(files, sizes, strict=True):
        if few and (mine > size_of_piece or size + mine > size_of_piece or len(few) == most_files):
            yield Piece(few)
            few, size = [], 0
        if mine <= size_of_piece:
            few, size = [*few, file], size + mine
        else:
            yield from _of_large(file, mine, max_bytes, size_of_piece)
    if few:
        yield Piece(few)


def _of_large(file: DataFile, size: int, max_bytes: int, size_of_piece: int) -> Iterator[Piece]:
    start = read.start_of_lines(file)
    if start is not None and size <= max_bytes:
        for begin in range(start, size, size_of_piece):
            yield Piece([file], lines=(begin, min(begin + size_of_piece, size)), is_first=begin == start)
        return
    begin, row = 0, 0
    with named(file), file.open() as plain:
        groups = columnar.row_groups(plain, max(GROUP_BYTES, size_of_piece))
    for end, rows in groups:
        yield Piece([file], groups=(begin, end), row=row, is_first=not begin)
        begin, row = end, row + rows
    if not begin:
        yield Piece([file])


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a plain file of JSON Lines."""

    name: str
    """Of the file."""
    data: bytes
    before: int
    """Lines before them, of the file or its range."""

    def row(self, at: int, line: bytes) -> RawRow:
        """The row of a line, by its place among all."""
        return RawRow(at + 1, self.name, line=line, at=self.before + at + 1)

    def __iter__(self) -> Iterator[RawRow]:
        """The rows, whose place is yet without the line, which `at` has."""
        for number, (line, data) in enumerate(lines(io.BytesIO(self.data)), 1):
            if (item := read.item_of_line(self.before + line, data)) is not None:
                yield read.raw_row(number, self.name, item, at=self.before + line)


class PieceRows:
    """The rows of a piece, and what is known after the last one."""

    def __init__(self, piece: Piece, max_bytes: int) -> None:
        self._piece, self._max_bytes = piece, max_bytes
        self.lines = 0
        """Lines of a range."""
        self.unpacked = 0
        """Bytes of row groups."""

    def blocks(self) -> Iterator[Iterable[RawRow]]:
        """All rows, some at a time.

        Raises:
            SourceError, StoreError: as `read.raw_rows`, also while rows are taken.
        """
        piece = self._piece
        if piece.lines:
            yield from self._range(piece.files[0], *piece.lines)
        elif piece.groups:
            yield self._groups(piece.files[0], piece.groups)
        else:
            for is_small, files in groupby(piece.files, lambda file: file.size < SMALL_BYTES):
                for file in () if is_small else files:
                    start = read.start_of_lines(file)
                    if start is not None and file.size <= self._max_bytes:
                        yield from self._range(file, start, file.size)
                    else:
                        yield read.raw_rows([file], self._max_bytes)
                if is_small:
                    yield read.raw_rows([*files], self._max_bytes)

    def _range(self, file: DataFile, begin: int, end: int) -> Iterator[Block]:
        self.lines = 0
        with named(file), file.open(end) as whole:
            stream = _Range(whole, begin, end, self._piece.is_first)
            while data := stream.block():
                yield Block(file.name, data, self.lines)
                self.lines += line_breaks(data) + (not data.endswith(b"\n"))

    def _groups(self, file: DataFile, groups: tuple[int, int]) -> Iterator[RawRow]:
        bound = columnar.UnpackedBound(self._max_bytes)
        items = read.items_of_groups(file, bound, groups, self._piece.row)
        for number, item in enumerate(items, 1):
            yield read.raw_row(number, f"{file.name}{item.where}", item)
        self.unpacked = self._max_bytes - bound.left


class _Range:
    """The lines that begin in [begin, end) of a file, the last one to its end."""

    def __init__(self, file: IO[bytes], begin: int, end: int, is_first: bool) -> None:
        self._file, self._left = file, end - begin
        if is_first:
            file.seek(begin)
            return
        file.seek(begin - 1)
        skipped = file.readline(end - begin + 1)  # the rest of a line that began before
        self._left -= len(skipped) - 1
        if not skipped.endswith(b"\n"):
            self._left = 0

    def block(self) -> bytes:
        """Some more lines; of one that is too long, no more than shows that it is."""
        data = last = self._file.read(max(0, min(BLOCK_BYTES, self._left)))
        self._left -= len(data)
        while last and not last.endswith(b"\n"):
            last = self._file.readline(MAX_ROW_BYTES + 1)
            self._left -= len(last)
            if len(data) <= BLOCK_BYTES + MAX_ROW_BYTES:
                data += last
        return data
