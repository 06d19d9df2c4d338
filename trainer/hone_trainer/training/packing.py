"""Rows packed into sequences, best fit decreasing (Ding et al. 2024, arXiv 2404.10830), on their lengths alone.

The packs, and the order of rows in them, are those of TRL's `pack_dataset(..., strategy="bfd")`, which wants all tokens
in memory.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

import numpy as np

TOGETHER = 1000
"""Rows that are packed together: so many TRL gets at a time."""
_BITS = TOGETHER.bit_length()


class Packs:
    """Which rows are in which sequence."""

    def __init__(self, lengths: Any, longest: int) -> None:
        """Pack rows of these lengths into sequences of at most `longest` tokens; no row is longer."""
        order, sizes, tokens = [], [], []
        for start in range(0, len(lengths), TOGETHER):
            part = np.asarray(lengths[start : start + TOGETHER])
            longest_first = np.argsort(-part, kind="stable")
            ordered = part[longest_first]
            numbers = np.array(_placed(ordered.tolist(), longest), np.int16)
            rows = longest_first[np.argsort(numbers, kind="stable")]
            order.append(rows.astype(np.int32) + np.int32(start))
            sizes.append(np.bincount(numbers).astype(np.int32))
            tokens.append(np.bincount(numbers, weights=ordered).astype(np.int32))
        self._rows = np.concatenate(order)
        self._ends = np.cumsum(np.concatenate(sizes), dtype=np.int32)
        self.lengths = np.concatenate(tokens)
        """Tokens of each sequence."""

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> list[int]:
        """Indices of a sequence's rows, in their order."""
        start = self._ends[index - 1] if index else 0
        rows: list[int] = self._rows[start : self._ends[index]].tolist()
        return rows


def _placed(lengths: list[int], longest: int) -> list[int]:
    """The sequence of each row, for rows of descending length. A row comes into the sequence that it fills best, of
    equals the one that has had this space for the longest time."""
    numbers: list[int] = []
    waiting: list[int] = []
    """Ascending: the space that a sequence has left, and in the lowest bits the last row that it got."""
    started = row = 0
    while row < len(lengths):
        length = lengths[row]
        at = bisect_left(waiting, length << _BITS)
        if at < len(waiting):
            space, last = divmod(waiting.pop(at), 1 << _BITS)
            number = numbers[last]
        else:
            space, number = longest, started
            started += 1
        # Where rows of this length fit twice, the sequence has the least space of all that they fit into.
        first, equal = row, True
        while equal:
            space, row = space - length, row + 1
            equal = space >= length and row < len(lengths) and lengths[row] == length
        numbers += [number] * (row - first)
        if space:
            insort(waiting, space << _BITS | row - 1)
    return numbers
