"""Several Datasets as one: how much of each, and which of its rows. Pure, and the same on every machine.

Parts without a share go in whole, once; the others are cut or repeated to reach their shares
of the whole. When every part has a share, the first one goes in whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from typing import Any

from hone_api.combinations.shares import share_of, share_problem, total_of
from hone_api.words.failures import FailureCode
from hone_trainer.datasets.splits.splits import hash_of
from hone_trainer.errors import ConfigError

_HASHED = 2**15
"""Rows whose hashes are in memory at once."""
MANY_PASSES = 4
"""Repeated up to four times, rows are about as good as new ones (Muennighoff et al. 2023, arXiv 2305.16264)."""


@dataclass(frozen=True)
class WeightedRows:
    """Rows that go into a mixture: their sizes (tokens; 1 to count rows), and the share that was asked for."""

    name: str
    sizes: Sequence[int]
    share: str | None = None


def amounts(parts: Sequence[WeightedRows], total: int | None = None) -> list[int]:
    """How much of each part is wanted, in the unit of its sizes.

    Args:
        total: size of the whole; None as in the module's first lines. Every part must have a share for it.

    Raises:
        ConfigError: shares that are not 100 % together, or leave nothing for parts without one.
    """
    shares = [None if part.share is None else share_of(part.share) for part in parts]
    without = ", ".join(part.name for part in parts if part.share is None)
    if words := share_problem([part.share for part in parts], rest=without):
        raise ConfigError(words, FailureCode.CONFLICTING_FIELDS)
    stated = total_of([part.share for part in parts])
    has = [sum(part.sizes) for part in parts]
    if all(share is None for share in shares):
        return has
    if None in shares:
        whole = sum(size for size, share in zip(has, shares, strict=True) if share is None) / (1 - stated)
    else:
        whole = total / stated if total else has[0] / (shares[0] or Fraction(1))
    return [size if share is None else max(1, round(whole * share)) for size, share in zip(has, shares, strict=True)]


def amounts_once(parts: Sequence[WeightedRows]) -> list[int]:
    """The most of each part, in the proportions of their shares, with which no row is repeated; every part has one."""
    shares = [share_of(part.share or "100%") for part in parts]
    whole = min(sum(part.sizes) / share for part, share in zip(parts, shares, strict=True))
    return [max(1, int(whole * share)) for share in shares]


def pick(part: WeightedRows, amount: int, seed: int) -> list[int]:
    """Indices of the rows that make up about `amount`, ascending: whole passes over all, then some of them again.

    Which ones depends on seed, name and index alone, and those of a smaller amount are among those of a larger one.
    """
    passes, rest = divmod(amount, sum(part.sizes))
    every = range(len(part.sizes))
    if not rest:
        return list(every) * passes
    more = []
    for index in sorted(every, key=lambda i: hash_of(f"{part.name}\0{i}".encode(), seed)):
        if 2 * rest < part.sizes[index]:
            break
        rest -= part.sizes[index]
        more.append(index)
        if rest <= 0:
            break
    return list(every) * passes + sorted(more)


def pick_rows(name: str, rows: int, amount: int, seed: int) -> Any:
    """The indices that `pick` gives for a part of so many rows of size 1, as a numpy array, in few bytes a row."""
    import numpy as np

    def hashes(indices: Iterable[int]) -> Any:
        return np.frombuffer(b"".join([sha256(b"%b%d" % (before, i)).digest() for i in indices]), ">u8")[::4]

    passes, rest = divmod(amount, rows)
    index = np.int32 if rows < 2**31 else np.int64
    whole = np.tile(np.arange(rows, dtype=index), passes)
    if not rest:
        return whole
    before = b"%d\0%b\0" % (seed, name.encode())  # as `hash_of` has it
    blocks = (range(start, min(start + _HASHED, rows)) for start in range(0, rows, _HASHED))
    upper = np.concatenate([(hashes(block) >> 32).astype(np.uint32) for block in blocks])
    last = np.partition(upper, rest - 1)[rest - 1]
    taken = upper < last
    alike = np.flatnonzero(upper == last)  # one row, or the few whose lower halves decide
    first = np.argsort(hashes(alike.tolist()), kind="stable")[: rest - np.count_nonzero(taken)]
    taken[alike[first]] = True
    return np.concatenate([whole, np.flatnonzero(taken).astype(index)])


def percent(part: int, whole: int) -> str:
    """A share for people, e.g. 10.0%."""
    return f"{100 * part / whole:.1f}%" if whole else "0.0%"
