"""The order of rows within an optimiser step: like lengths together, so that little is padded.

A step's loss is normalised over all its tokens, so the order of its rows does not change its gradient: unlike grouping
by length over the whole data (transformers' group_by_length), the rows of a step stay the random ones that they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any


class WithinStep:
    """Another sampler's rows, sorted by length within each step, longest first (memory shows its peak at once).

    Args:
        inner: a sampler of row indices with `set_epoch`.
        lengths: tokens of each row.
        rows: of a step over all ranks.
    """

    def __init__(self, inner: Any, lengths: Sequence[int], rows: int) -> None:
        self._inner, self._lengths, self._rows = inner, lengths, rows

    def __iter__(self) -> Iterator[int]:
        indices = iter(self._inner)
        while step := list(islice(indices, self._rows)):
            yield from sorted(step, key=self._lengths.__getitem__, reverse=True)

    def __len__(self) -> int:
        return len(self._inner)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the start of each epoch, and when a run is resumed in the middle of one."""
        if hasattr(self._inner, "set_epoch"):
            self._inner.set_epoch(epoch)


class PromptOrder:
    """TRL's RepeatSampler with an order for each epoch: TRL's continues one generator, of which a run that is
    resumed in a later epoch knows nothing. The first epoch's order is TRL's."""

    def __init__(self, inner: Any, seed: int) -> None:
        self._inner, self._seed, self._epoch = inner, seed, 0

    def __iter__(self) -> Iterator[int]:
        self._inner.generator.manual_seed(self._seed + self._epoch)
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate, as above."""
        self._epoch = epoch
