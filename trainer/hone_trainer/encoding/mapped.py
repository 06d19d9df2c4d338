"""Encoded rows as sequences of examples that are read where they are: mapped from the disk, joined, or picked.

Nothing here holds the rows in memory, and all processes of a node share the pages of a file.
"""

from __future__ import annotations

import json
import mmap
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from hone_trainer.encoding.columns import Batch
from hone_trainer.encoding.split_file import Counts, Example, RefusedLines, longest

ROWS, COUNTS = "rows.arrow", "counts.json"
LENGTHS, TOKENS, TRAINED = "lengths.npy", "tokens.npy", "trained.npy"
"""A number for each row: tokens of its longest sequence, of all its sequences, and those that count."""
_BATCHES_KEPT = 256
"""How many batches are read before their pages are released."""


class Examples(Sequence[Any]):
    """A sequence of examples with their lengths as numpy arrays; a slice of it is one as well."""

    lengths: Any
    """Tokens of each example's longest sequence."""

    @property
    def tokens(self) -> Any:
        """Tokens of each example's sequences together; not kept in memory, since it is read once."""
        raise NotImplementedError

    @property
    def total(self) -> int:
        """Tokens of all sequences."""
        return int(self.tokens.sum(dtype=np.int64))

    @property
    def most(self) -> int:
        """Tokens of the longest sequence of all."""
        return int(self.lengths.max())

    @property
    def has_masks(self) -> bool:
        """Whether an answer among them has tokens that do not count."""
        raise NotImplementedError

    def flags(self, name: str) -> Any:
        """A field of truth values, of all examples."""
        raise NotImplementedError

    def _at(self, index: int) -> Any:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            if index.indices(len(self)) == (0, len(self), 1):
                return self
            return Picked(self, np.arange(*index.indices(len(self)), dtype=np.int64))
        at = int(index)
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self._at(at % len(self))

    def __iter__(self) -> Iterator[Any]:
        return map(self._at, range(len(self)))

    def __deepcopy__(self, memo: Any) -> Examples:
        return self  # it is never changed


class Mapped(Examples):
    """The rows of a folder that `writing` made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with open(folder / ROWS, "rb") as file:
            memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        batches = pa.ipc.open_stream(pa.py_buffer(memory)).read_all().to_batches()
        self._memory = memory
        self._release_pages()
        self._batches = [Batch(batch) for batch in batches]
        self._ends = list(accumulate(map(len, self._batches)))

    def __reduce__(self) -> Any:
        return Mapped, (self.folder,)

    def _release_pages(self) -> None:
        """Give back what was read: the kernel maps 64 KiB around each page, which counts as memory of this process."""
        self._memory.madvise(mmap.MADV_DONTNEED)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _at(self, index: int) -> Example:
        number = bisect_right(self._ends, index)
        return self._batches[number].example(index - (self._ends[number - 1] if number else 0))

    @cached_property
    def lengths(self) -> Any:
        return np.load(self.folder / LENGTHS, mmap_mode="r")

    @property
    def tokens(self) -> Any:
        return np.load(self.folder / TOKENS, mmap_mode="r")

    # The files have a number for each row: reading them would put their pages into this process.

    @property
    def total(self) -> int:
        return int(self._counts["tokens"])

    @property
    def most(self) -> int:
        return int(self._counts["longestKept"])

    @cached_property
    def _counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = json.loads((self.folder / COUNTS).read_text())
        return counts

    @property
    def has_masks(self) -> bool:
        return bool(self._counts["hasMasks"])

    def flags(self, name: str) -> Any:
        parts = []
        for number, batch in enumerate(self._batches, start=1):
            parts.append(batch.flags(name))
            if number % _BATCHES_KEPT == 0:
                self._release_pages()
        self._release_pages()
        return np.concatenate(parts)

    @property
    def counts(self) -> Counts:
        """What became of the split's lines."""
        return counts_from(self._counts)


class Picked(Examples):
    """Some examples of a sequence, by their indices; one can be there more than once."""

    def __init__(self, rows: Examples, indices: Any) -> None:
        self._rows, self._indices = rows, indices

    @property
    def has_masks(self) -> bool:
        return self._rows.has_masks

    def flags(self, name: str) -> Any:
        return self._rows.flags(name)[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def _at(self, index: int) -> Any:
        return self._rows._at(int(self._indices[index]))

    @cached_property
    def lengths(self) -> Any:
        return self._rows.lengths[self._indices]

    @property
    def tokens(self) -> Any:
        return self._rows.tokens[self._indices]


class Joined(Examples):
    """Several sequences, one after the other."""

    def __init__(self, parts: Sequence[Examples]) -> None:
        self._parts = list(parts)
        self._ends = list(accumulate(map(len, self._parts)))

    @property
    def has_masks(self) -> bool:
        return any(part.has_masks for part in self._parts)

    def flags(self, name: str) -> Any:
        return np.concatenate([part.flags(name) for part in self._parts])

    def __len__(self) -> int:
        return self._ends[-1]

    def _at(self, index: int) -> Any:
        number = bisect_right(self._ends, index)
        return self._parts[number]._at(index - (self._ends[number - 1] if number else 0))

    @cached_property
    def lengths(self) -> Any:
        return np.concatenate([part.lengths for part in self._parts])

    @property
    def tokens(self) -> Any:
        return np.concatenate([part.tokens for part in self._parts])

    @property
    def total(self) -> int:
        return sum(part.total for part in self._parts)

    @property
    def most(self) -> int:
        return max(part.most for part in self._parts)


def lengths(rows: Sequence[Example]) -> Any:
    """Tokens of the longest sequence of each example, as a numpy array of integers."""
    return rows.lengths if isinstance(rows, Examples) else np.array([longest(row) for row in rows], np.int64)


def flags(rows: Sequence[Any], name: str) -> Any:
    """A field of truth values of all examples, as a numpy array of bool."""
    return rows.flags(name) if isinstance(rows, Examples) else np.array([getattr(row, name) for row in rows], bool)


def most(rows: Sequence[Example]) -> int:
    """Tokens of the longest sequence of all."""
    return rows.most if isinstance(rows, Examples) else max(map(longest, rows))


def has_masks(rows: Sequence[Any]) -> bool:
    """Whether tokens of an answer may not count."""
    if isinstance(rows, Examples):
        return rows.has_masks
    names = ("chosen_mask", "rejected_mask", "mask")
    return any(getattr(row, name, None) for row in rows for name in names)


def counts_to(counts: Counts) -> dict[str, Any]:
    """JSON of the counts."""
    plain = {name: getattr(counts, name) for name in _NUMBERS}
    return {
        **plain,
        "refused": {code: vars(refused) for code, refused in counts.refused.items()},
        "end_marks": sorted(counts.end_of_turn_ids),
        "last_tokens": sorted([list(last), count] for last, count in counts.last_tokens.items()),
    }


def counts_from(body: dict[str, Any]) -> Counts:
    """The counts of their JSON."""
    counts = Counts(**{name: body[name] for name in _NUMBERS})
    counts.refused = {code: RefusedLines(**refused) for code, refused in body["refused"].items()}
    counts.end_of_turn_ids = set(body["end_marks"])
    counts.last_tokens.update({tuple(last): count for last, count in body["last_tokens"]})
    return counts


_NUMBERS = (
    "lines",
    "rows",
    "tokens",
    "trained_tokens",
    "longest",
    "too_long",
    "truncated",
    "without_labels",
    "tokens_lost",
)
