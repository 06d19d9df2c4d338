"""Groups rows into batches for workers: small enough that all waiting batches fit in memory, and large enough that the
cost of sending them is low.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from hone_trainer.datasets.rows import RawRow
from hone_trainer.datasets.spool import ValidRow

ROWS, BYTES = 256, 2**20
"""Of a batch; a row that is larger is a batch by itself."""
Packed = RawRow | bytes
"""A row as read, or pickled, where its size would not be known otherwise."""
One = TypeVar("One")


def of_rows(rows: Iterable[ValidRow]) -> Iterator[list[ValidRow]]:
    """Valid rows."""
    return _batches(rows, lambda row: len(row.line))


def of_raw_rows(rows: Iterable[RawRow]) -> Iterator[list[Packed]]:
    """Rows as read."""
    return _batches(map(_packed, rows), size)


def size(row: Packed) -> int:
    """Bytes of a row as it is sent, about."""
    return len(row) if isinstance(row, bytes) else len(row.line or b"")


def unpacked(row: Packed) -> RawRow:
    """The row as it was read."""
    if isinstance(row, RawRow):
        return row
    raw: RawRow = pickle.loads(row)
    return raw


def _packed(row: RawRow) -> Packed:
    return row if row.value is None else pickle.dumps(row, pickle.HIGHEST_PROTOCOL)


def _batches(rows: Iterable[One], size_of: Callable[[One], int]) -> Iterator[list[One]]:
    batch: list[One] = []
    total = 0
    for row in rows:
        if batch and (len(batch) == ROWS or total + size_of(row) > BYTES):
            yield batch
            batch, total = [], 0
        batch.append(row)
        total += size_of(row)
    if batch:
        yield batch
