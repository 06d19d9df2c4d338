"""The order of rows, in few bytes a row: the library's samplers make a Python object of each index.

Within an optimiser step, like lengths come together, so that little is padded. A step's loss is normalised over all its
tokens, so the order of its rows does not change its gradient: unlike grouping by length over the whole data
(transformers' group_by_length), the rows of a step stay the random ones that they are.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from typing import Any

_AT_ONCE = 4096
"""Indices that are Python objects at a time."""


class Shuffled:
    """The order of accelerate's SeedableRandomSampler, with the same draws, in four bytes a row.

    Args:
        inner: what accelerate made; its seed and epoch decide the order.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __iter__(self) -> Iterator[int]:
        import torch

        generator = torch.Generator().manual_seed(self._inner.initial_seed + self._inner.epoch)
        yield from _permutation(len(self), generator)
        self._inner.set_epoch(self._inner.epoch + 1)

    def __len__(self) -> int:
        return len(self._inner)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate, see `WithinStep`."""
        self._inner.set_epoch(epoch)


class Rounds:
    """Another sampler's rows in micro batches, one for each rank in turn. Where the last round has too few, the others
    of its batches have no row: accelerate would repeat the epoch's first rows.

    Args:
        size: rows of a batch.
        lengths: tokens of each row, if each rank is to have about as many of a round as the others.
    """

    batch_size = None
    """For accelerate: the sizes differ."""
    drop_last = False

    def __init__(self, sampler: Any, size: int, world_size: int, lengths: Sequence[int] | None = None) -> None:
        self.sampler, self._size, self._ranks, self._lengths = sampler, size, world_size, lengths

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        for _ in range(len(self) // self._ranks):
            rows = list(islice(indices, self._size * self._ranks))
            if self._lengths is None:
                yield from (rows[rank * self._size : (rank + 1) * self._size] for rank in range(self._ranks))
            else:
                yield from self._shared(sorted(rows, key=self._lengths.__getitem__, reverse=True))

    def _shared(self, rows: list[int]) -> Iterator[list[int]]:
        """Dealt out to the ranks, there and back again."""
        turns = [rows[start : start + self._ranks] for start in range(0, len(rows), self._ranks)]
        for rank in range(self._ranks):
            places = (rank if turn % 2 == 0 else self._ranks - 1 - rank for turn in range(len(turns)))
            yield [turn[place] for turn, place in zip(turns, places, strict=True) if place < len(turn)]

    def __len__(self) -> int:
        return -(-len(self.sampler) // (self._size * self._ranks)) * self._ranks


def deal(loader: Any, lengths: Sequence[int] | None = None) -> None:
    """Let the loader of one of several ranks, which accelerate has prepared, have its batches of `Rounds`."""
    shard = loader.batch_sampler
    shard.batch_sampler = Rounds(shard.batch_sampler.sampler, shard.batch_size, shard.num_processes, lengths)
    shard.batch_size = None


def compact(loader: Any) -> None:
    """Give a prepared data loader `Shuffled` in place of accelerate's random sampler, if it has that one."""
    from accelerate.data_loader import SeedableRandomSampler

    if isinstance(sampler := loader.get_sampler(), SeedableRandomSampler):
        loader.set_sampler(Shuffled(sampler))


def _permutation(rows: int, generator: Any) -> Iterator[int]:
    """`torch.randperm(rows, generator=generator).tolist()`, made when it is asked for."""
    import torch

    dtype = torch.int32 if rows < 2**31 else torch.int64  # the draws are the same
    order = torch.randperm(rows, generator=generator, dtype=dtype)
    for part in order.split(_AT_ONCE):
        yield from part.tolist()


def passes(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Places of rows, put together in as few passes of up to `most` tokens as it takes, with about as many in each.

    Args:
        lengths: tokens of each row, at most `most`.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    for count in range(-(-sum(lengths) // most) or 1, len(lengths) + 1):
        result: list[list[int]] = [[] for _ in range(count)]
        free = [(0, number) for number in range(count)]
        for place in order:
            tokens, number = free[0]
            heapq.heapreplace(free, (tokens + lengths[place], number))
            result[number].append(place)
        if max(free)[0] <= most:
            return result
    return [[place] for place in order]


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
    """TRL's RepeatSampler with an order for each epoch: TRL's continues one generator, whose state a run that is
    resumed in a later epoch does not have. The first epoch's order is TRL's."""

    def __init__(self, inner: Any, seed: int) -> None:
        self._inner, self._seed, self._epoch = inner, seed, 0

    def __iter__(self) -> Iterator[int]:
        inner, prompts = self._inner, self._prompts(self._epoch)
        while len(batch := list(islice(prompts, inner.batch_size))) == inner.batch_size:
            for _ in range(inner.repeat_count):
                for prompt in batch:
                    yield from repeat(prompt, inner.mini_repeat_count)

    def _prompts(self, epoch: int) -> Iterator[int]:
        import torch

        return _permutation(self._inner.num_samples, torch.Generator().manual_seed(self._seed + epoch))

    def batch(self, number: int) -> list[int]:
        """The prompts of a batch, counted over all epochs, each as often as it has samples."""
        inner = self._inner
        epoch, place = divmod(number, inner.num_samples // inner.batch_size)
        prompts = islice(self._prompts(epoch), place * inner.batch_size, (place + 1) * inner.batch_size)
        return [prompt for prompt in prompts for _ in range(inner.mini_repeat_count)]

    def __len__(self) -> int:
        return len(self._inner)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate, as above."""
        self._epoch = epoch
