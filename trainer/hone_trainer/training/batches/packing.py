"""Rows packed into sequences, best fit decreasing (Ding et al. 2024, arXiv 2404.10830), on their lengths alone.

The packs, and the order of rows in them, are those of TRL's `pack_dataset(..., strategy="bfd")`, which wants all tokens
in memory.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left, insort
from pathlib import Path
from typing import Any

import numpy as np

from hone_trainer.store.arrays import save

TOGETHER = 1000
"""Rows that are packed together: so many TRL gets at a time."""
_BITS = TOGETHER.bit_length()
_AT_ONCE = 4 * TOGETHER
"""Rows whose lengths are in memory at a time, where they are mapped from a file."""


_FILES = ("rows.npy", "ends.npy", "lengths.npy")


class Packs:
    """Which rows are in which sequence: 2 bytes a row and 8 bytes a sequence.

    Args:
        rows: of each sequence its rows, counted from the first of those that are packed together.
        ends: for each sequence where its rows end.
        lengths: tokens of each sequence.
    """

    def __init__(self, rows: Any, ends: Any, lengths: Any) -> None:
        self._rows, self._ends, self.lengths = rows, ends, lengths

    @classmethod
    def of(cls, lengths: Any, longest: int) -> Packs:
        """Pack rows of these lengths into sequences of at most `longest` tokens; no row is longer."""
        rows = np.empty(len(lengths), np.uint16)
        sizes, tokens = [], []
        whole = len(lengths) - len(lengths) % TOGETHER
        for start in (*range(0, whole, _AT_ONCE), *([whole] if whole < len(lengths) else [])):
            stop = min(start + _AT_ONCE, whole) if start < whole else len(lengths)
            groups = np.asarray(lengths[start:stop]).reshape(-1, min(stop - start, TOGETHER))
            longest_first = np.argsort(_descending(groups, longest), axis=1, kind="stable")
            ordered = np.take_along_axis(groups, longest_first, axis=1)
            numbers, counts = _placed(ordered, longest)
            in_order = np.argsort(numbers, axis=1, kind="stable")
            rows[start:stop] = np.take_along_axis(longest_first, in_order, axis=1).ravel()
            sequence = (numbers + (np.cumsum(counts) - counts)[:, None]).ravel()
            sizes.append(np.bincount(sequence).astype(np.uint16))
            tokens.append(np.bincount(sequence, weights=ordered.ravel()).astype(np.int32))
            leave(lengths)
        ends = np.cumsum(np.concatenate(sizes), dtype=np.int32)
        del sizes
        return cls(rows, ends, np.concatenate(tokens))

    def save(self, folder: Path) -> None:
        """Write them into files of an empty folder."""
        for name, array in zip(_FILES, (self._rows, self._ends, self.lengths), strict=True):
            save(folder / name, array)

    @classmethod
    def mapped(cls, folder: Path) -> Packs:
        """Those that `save` wrote; all processes of a node share the pages of the files."""
        return cls(*(np.load(folder / name, mmap_mode="r") for name in _FILES))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> list[int]:
        """Indices of a sequence's rows, in their order."""
        start = int(self._ends[index - 1]) if index else 0
        first = start - start % TOGETHER
        return [first + row for row in self._rows[start : self._ends[index]].tolist()]


def leave(lengths: Any) -> None:
    """Leave the pages of a mapped array to the system's cache: they would count as memory of this process."""
    if isinstance(mapping := getattr(lengths, "base", None), mmap.mmap):
        mapping.madvise(mmap.MADV_DONTNEED)


def _descending(lengths: Any, longest: int) -> Any:
    """Numbers that ascend where lengths descend; in 16 bits numpy sorts them by radix, four times as fast."""
    return (longest - lengths).astype(np.uint16) if longest < 2**16 else -lengths


def _placed(lengths: Any, longest: int) -> tuple[Any, Any]:
    """The sequence of each row, for groups of rows of descending length, and the number of sequences of each group. A
    row comes into the sequence that it fills best, of equals the one that has had this space for the longest time.

    Args:
        lengths: (groups, rows).
    """
    count, size = lengths.shape
    is_last = np.ones((count, size), bool)
    is_last[:, :-1] = lengths[:, 1:] != lengths[:, :-1]
    numbers: list[int] = []
    taken: list[int] = []
    """Of each step: the sequence, and how many rows of one length come into it."""
    counts: list[int] = []
    waiting: list[int] = []
    """Ascending: the space that a sequence has left, and in the lowest bits the last row that it got."""
    number_of = [0] * size
    """The sequence by the last row that it got."""
    started = row = 0
    for end, length in zip((np.flatnonzero(is_last) % size + 1).tolist(), lengths[is_last].tolist(), strict=True):
        while row < end:
            at = bisect_left(waiting, length << _BITS)
            if at < len(waiting):
                space, last = divmod(waiting.pop(at), 1 << _BITS)
                number = number_of[last]
            else:
                space, number = longest, started
                started += 1
            # Where rows of this length fit twice, the sequence has the least space of all that they fit into.
            rows = min(end - row, space // length)
            row += rows
            numbers.append(number)
            taken.append(rows)
            if space := space - rows * length:
                insort(waiting, space << _BITS | row - 1)
                number_of[row - 1] = number
        if row == size:
            counts.append(started)
            waiting.clear()
            started = row = 0
    return np.repeat(np.array(numbers, np.int16), taken).reshape(count, size), np.array(counts, np.int32)
