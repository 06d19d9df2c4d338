"""Files in pieces that workers read by themselves: ranges of lines, row groups, and whole files.

Plain JSON Lines are divided by bytes, Parquet by row groups; any other file is read whole, and small files share a
piece. How files are divided depends on them alone, so rows, numbers and places are the same for any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from hone_trainer.datasets.readers import columnar, read
from hone_trainer.datasets.readers.items import lines
from hone_trainer.datasets.readers.read import DataFile, named
from hone_trainer.datasets.readers.rows import RawRow

BYTES, MOST_BYTES, PIECES = 4 * 2**20, 64 * 2**20, 1000
"""Of a range of lines: at least and at most, and how many of them a source is to have. Files that are not larger share
a piece of about this size."""
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


class PieceRows:
    """The rows of a piece, with numbers from 1, and what is known after the last one.

    Iterating raises as `read.raw_rows`.
    """

    def __init__(self, piece: Piece, max_bytes: int) -> None:
        self._piece, self._max_bytes = piece, max_bytes
        self.lines = 0
        """Lines of a range."""
        self.unpacked = 0
        """Bytes of row groups."""

    def __iter__(self) -> Iterator[RawRow]:
        piece = self._piece
        if piece.lines:
            return self._range(piece.files[0], *piece.lines)
        if piece.groups:
            return self._groups(piece.files[0], piece.groups)
        return read.raw_rows(piece.files, self._max_bytes)

    def _range(self, file: DataFile, begin: int, end: int) -> Iterator[RawRow]:
        """Rows whose place is yet without the line, which `at` has."""
        number = 0
        with named(file), file.open(end) as whole:
            stream = _Range(whole, begin, end, self._piece.is_first)
            for self.lines, data in lines(stream):
                if (item := read.item_of_line(self.lines, data)) is not None:
                    number += 1
                    yield read.raw_row(number, file.name, item, at=self.lines)

    def _groups(self, file: DataFile, groups: tuple[int, int]) -> Iterator[RawRow]:
        bound = columnar.UnpackedBound(self._max_bytes)
        items = read.items_of_groups(file, bound, groups, self._piece.row)
        for number, item in enumerate(items, 1):
            yield read.raw_row(number, f"{file.name}{item.where}", item)
        self.unpacked = self._max_bytes - bound.left


class _Range:
    """The lines that begin in [begin, end) of a file, the last one to its end."""

    def __init__(self, file: IO[bytes], begin: int, end: int, is_first: bool) -> None:
        self._file, self._left, self._is_within = file, end - begin, False
        if is_first:
            file.seek(begin)
            return
        file.seek(begin - 1)
        skipped = file.readline(end - begin + 1)  # the rest of a line that began before
        self._left -= len(skipped) - 1
        if not skipped.endswith(b"\n"):
            self._left = 0

    def readline(self, limit: int, /) -> bytes:
        """As `Lines.readline`."""
        if self._left <= 0 and not self._is_within:
            return b""
        data = self._file.readline(limit)
        self._left -= len(data)
        self._is_within = bool(data) and not data.endswith(b"\n")
        return data
