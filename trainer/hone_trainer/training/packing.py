"""Rows packed into sequences, best fit decreasing (Ding et al. 2024, arXiv 2404.10830), on their lengths alone.

The packs, and the order of rows in them, are those of TRL's `pack_dataset(..., strategy="bfd")`, which wants all tokens
in memory.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import Any

import numpy as np

TOGETHER = 1000
"""Rows that are packed together: so many TRL gets at a time."""


class Packs:
    """Which rows are in which sequence."""

    def __init__(self, lengths: Any, longest: int) -> None:
        """Pack rows of these lengths into sequences of at most `longest` tokens; no row is longer."""
        order, sizes, tokens = [], [], []
        for start in range(0, len(lengths), TOGETHER):
            part = np.asarray(lengths[start : start + TOGETHER])
            bins = _binned(part, longest)
            rows = np.fromiter(chain.from_iterable(bins), np.int32, len(part))
            counts = np.fromiter(map(len, bins), np.int32, len(bins))
            order.append(rows + np.int32(start))
            sizes.append(counts)
            tokens.append(np.add.reduceat(part[rows], np.cumsum(counts) - counts, dtype=np.int32))
        self._rows = np.concatenate(order)
        self._ends = np.cumsum(np.concatenate(sizes), dtype=np.int32)
        self.lengths = np.concatenate(tokens)
        """Tokens of each sequence."""

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> list[int]:
        """Indices of a sequence's rows, in their order."""
        start = self._ends[index - 1] if index else 0
        found: list[int] = self._rows[start : self._ends[index]].tolist()
        return found


def _binned(lengths: Any, longest: int) -> list[list[int]]:
    """Rows by sequence. The longest row comes first, into the sequence that it fills best, the oldest of equals."""
    bins: list[list[int]] = []
    waiting: dict[int, deque[int]] = {}
    free = 0
    """The spaces that some sequence has left, as bits: finding the smallest that is large enough is one operation."""
    order = np.argsort(-lengths, kind="stable")
    for row, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if fitting := free >> length:
            space = length + (fitting & -fitting).bit_length() - 1
            number = waiting[space].popleft()
            if not waiting[space]:
                free &= ~(1 << space)
        else:
            space, number = longest, len(bins)
            bins.append([])
        bins[number].append(row)
        space -= length
        if space:
            waiting.setdefault(space, deque()).append(number)
            free |= 1 << space
    return bins
