"""Which split a row is in: by a hash of the seed and its group, so that appended rows move no other row.

The hash is spread over [0, 2^64). The lowest values are validation, the next are test, the rest is train. Equal rows,
and rows of one group, have one hash and cannot cross. In small data a wanted split can come out empty: then a bound
moves just far enough to give it one hash, i.e. as few rows as possible move. That they do not move back when rows are
appended is the work of `remembered`.

Rows with one question are one group, that of the first of them, unless splits.groupBy names another, or they are more
than the smallest held-out split has: a set of one question for all rows would be in one split (`joined`).

With splits.stratifyBy a place takes the hash's part: places are spread evenly over [0, 2^64) within each value of the
column, in the order of the rows. Rows that are appended at the end then move no other row.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from hone_api.dataset.dataset import Splits
from hone_trainer.errors import ConfigError

_SPACE = 2**64
_STEP = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: the first n multiples, modulo 2^64, are about as even as any n numbers can be,
whatever n is (Knuth, The Art of Computer Programming, 6.4, theorem S)."""
_MOST_STRATA = 10_000


def hash_of(key: bytes, seed: int) -> int:
    """A number in [0, 2^64) that depends on key and seed alone."""
    return int.from_bytes(hashlib.sha256(b"%d\0" % seed + key).digest()[:8], "big")


@dataclass
class Division:
    """Bounds of the splits. Show it every hash with `see`, then `settle`, then ask `split_of`."""

    validation_end: int
    test_end: int
    _highest: list[int] = field(default_factory=list)
    """The highest two hashes, the higher first."""
    _in_validation: bool = False
    _lowest_above: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, splits: Splits) -> Division:
        """The division that the shares ask for."""
        validation, test = _share(splits.validation), _share(splits.test)
        return cls(int(validation * _SPACE), int((validation + test) * _SPACE))

    def see(self, value: int) -> None:
        """Note that a row has this hash; what is kept does not grow with the rows."""
        if value not in self._highest:
            self._highest = sorted([*self._highest, value], reverse=True)[:2]
        if value < self.validation_end:
            self._in_validation = True
        elif value not in self._lowest_above:
            self._lowest_above = sorted([*self._lowest_above, value])[:2]

    def settle(self, filled: Collection[str] = ()) -> None:
        """Move the bound of a wanted split that would be empty, by one hash; not of those that are filled anyway."""
        wants_test = self.test_end > self.validation_end and "test" not in filled
        wants_train = self.test_end < _SPACE and "train" not in filled
        lowest = list(self._lowest_above)
        if self.validation_end and not self._in_validation and "validation" not in filled and lowest:
            self.validation_end = lowest.pop(0) + 1
        self.test_end = max(self.test_end, self.validation_end)
        if wants_test and lowest and lowest[0] >= self.test_end:
            self.test_end = lowest[0] + 1
        highest = list(self._highest)
        if wants_train and highest and highest[0] < self.test_end:
            self.test_end = highest.pop(0)
            self.validation_end = min(self.validation_end, self.test_end)
        if wants_test and highest and highest[0] < self.validation_end:
            self.validation_end = highest[0]  # all but the row of train were validation

    def split_of(self, value: int) -> str:
        """train, validation or test."""
        if value < self.validation_end:
            return "validation"
        return "test" if value < self.test_end else "train"


class Strata:
    """Rows by their value of splits.stratifyBy; 4 bytes of memory a row, and every value once."""

    def __init__(self, splits: Splits) -> None:
        self._splits = splits
        self._values = array("I")
        self._number: dict[str, int] = {}

    def see(self, stratum: str) -> None:
        """Note the value of the next row's column.

        Raises:
            ConfigError: more than 10,000 values.
        """
        self._values.append(self._number.setdefault(stratum, len(self._number)))
        if len(self._number) > _MOST_STRATA:
            column = self._splits.stratify_by
            raise ConfigError(
                f"splits.stratifyBy: column {column} has over {_MOST_STRATA} values: choose a coarser one"
            )

    def places(self, groups: array[int]) -> array[int]:
        """For each row, in order, the number that decides its split. A group has one: that of its first row.

        Args:
            groups: the hash of each row's group.
        """
        import numpy

        _, first, group = numpy.unique(numpy.array(groups), return_index=True, return_inverse=True)
        stratum = numpy.array(self._values)[first]
        order = numpy.lexsort((first, stratum))
        sizes = numpy.bincount(stratum, minlength=len(self._number))
        starts = numpy.repeat(numpy.cumsum(sizes) - sizes, sizes)
        begin = numpy.array([hash_of(name.encode(), self._splits.seed) for name in self._number], dtype=numpy.uint64)
        place = numpy.empty(len(first), dtype=numpy.uint64)
        place[order] = begin[stratum[order]] + (numpy.arange(len(first)) - starts).astype(numpy.uint64) * _STEP
        return array("Q", place[group].tobytes())


def joined(splits: Splits, groups: array[int], questions: array[int]) -> array[int]:
    """For each row the hash of its group, where rows with one question are one.

    Args:
        groups: of each row, the hash of the group that it is in for other reasons, or of its content.
        questions: the hash of what it asks.
    """
    import numpy

    shares = [share for share in (_share(splits.validation), _share(splits.test)) if share]
    if splits.group_by or not shares:
        return groups
    _, asked, rows = numpy.unique(numpy.array(questions), return_inverse=True, return_counts=True)
    is_kept = (rows[asked] > 1) & (rows[asked] <= int(min(shares) * len(groups)))
    if not is_kept.any():
        return groups
    alone = numpy.arange(len(rows), len(rows) + len(groups))
    keys = (numpy.where(is_kept, asked, alone), numpy.unique(numpy.array(groups), return_inverse=True)[1])
    first = numpy.arange(len(groups))
    while True:  # until no group of near duplicates connects two questions
        before = first
        for key in keys:
            lowest = numpy.full(len(rows) + len(groups), len(groups))
            numpy.minimum.at(lowest, key, first)
            first = lowest[key]
        if (first == before).all():
            return array("Q", numpy.array(groups)[first].tobytes())


def crossing(questions: array[int], codes: Sequence[int], held: int, train: int) -> int:
    """How many rows of a held-out split have their question in train, by each row's code of its split."""
    import numpy

    hashes, split = numpy.array(questions), numpy.array(codes)
    return int(numpy.isin(hashes[split == held], hashes[split == train]).sum())


def wanted(splits: Splits) -> list[str]:
    """Names of the splits whose share is above zero."""
    validation, test = _share(splits.validation), _share(splits.test)
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    return [name for name, share in shares.items() if share > 0]


def _share(percent: str) -> Decimal:
    return Decimal(percent.removesuffix("%")) / 100
