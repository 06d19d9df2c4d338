"""What one process reads for workers: files of another pod, and a source of one file that has no pieces.

It unpacks, reads tables as far as Arrow does, and finds where records of CSV and paragraphs end. It parses JSON arrays:
to find the ends of their elements would take as long. Workers cut lines, parse the rest, and make values of Python.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from hone_trainer.datasets import batches, columnar, pieces, read
from hone_trainer.datasets.columnar import Table
from hone_trainer.datasets.items import Item
from hone_trainer.datasets.pieces import Piece
from hone_trainer.datasets.read import Block, DataFile


class RowsRead(NamedTuple):
    """Rows that the parent has read for the workers."""

    rows: Sequence[batches.Packed]
    piece: Piece | None = None
    """Where they are from; None: the source."""
    begins: bool = False
    """Whether their numbers begin with 1; otherwise they go on from the rows before."""
    unpacked: int = 0
    """Bytes of row groups that were read for them."""


Shipped: TypeAlias = Piece | RowsRead


def parts(piece: Piece, max_bytes: int) -> Iterator[Shipped]:
    """A piece of one file in parts that need no file. Their rows, one after the other, are those of the piece.

    Args:
        max_bytes: bound on the unpacked bytes of the file.

    Raises:
        SourceError, StoreError: as `read.raw_rows`.
    """
    file, is_first = piece.files[0], piece.is_first
    bound = columnar.UnpackedBound(max_bytes)
    left = bound.left
    if piece.groups:
        blocks = read.blocks_of_groups(file, bound, piece.groups, piece.row)
    else:
        blocks = read.blocks(file, max_bytes, pieces.BYTES)
    for part in _parts(piece, _pieces(file, blocks)):
        yield _begun(part, is_first, left - bound.left)
        is_first, left = False, bound.left


def _parts(piece: Piece, pieces_and_items: Iterator[Piece | Item]) -> Iterator[Shipped]:
    """Pieces as they are, and the items between them in batches."""
    for _, run in itertools.groupby(pieces_and_items, type):
        if isinstance(first := next(run), Piece):
            yield first
            yield from (part for part in run if isinstance(part, Piece))
        else:
            yield from _rows(piece, itertools.chain([first], (item for item in run if isinstance(item, Item))))


def _begun(part: Shipped, is_first: bool, unpacked: int) -> Shipped:
    """The part as the first one of its file, or as a later one, with the bytes that were unpacked for it."""
    if isinstance(part, Piece):
        return part._replace(is_first=is_first, unpacked=unpacked)
    return part._replace(piece=part.piece and part.piece._replace(is_first=is_first), unpacked=unpacked)


def _pieces(file: DataFile, blocks: Iterable[Block]) -> Iterator[Piece | Item]:
    begin = 0
    for block in blocks:
        if isinstance(block, bytes):
            yield Piece([file], lines=(begin, begin + len(block)), data=block)
            begin += len(block)
        elif isinstance(block, Table):
            yield from _of_table(file, block)
        elif isinstance(block, Item):
            yield block
        else:
            yield Piece([file], cut=block)


def _of_table(file: DataFile, table: Table) -> Iterator[Piece | Item]:
    from pyarrow import ArrowException

    try:
        data = table.to_bytes()
    except ArrowException:  # Arrow reads more types than it writes
        yield from read.items_of_tables(file, [table])
        return
    yield Piece([file], row=table.row - 1, table=(table.kind, data))


def _rows(piece: Piece, items: Iterable[Item]) -> Iterator[RowsRead]:
    name = piece.files[0].name
    rows = (read.raw_row(number, f"{name}{item.where}", item) for number, item in enumerate(items, 1))
    for number, batch in enumerate(batches.of_raw_rows(rows)):
        yield RowsRead(batch, piece, begins=number == 0)
