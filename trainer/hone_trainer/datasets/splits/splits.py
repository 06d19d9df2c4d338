"""Which split a row is in: by a hash of the seed and its group, so that appended rows move no other row.

The hash is spread over [0, 2^64). The lowest values are validation, the next are test, the rest is train. Equal rows,
and rows of one group, have one hash and cannot cross. In small data a wanted split can come out empty: then a bound
moves just far enough to give it one hash, i.e. as few rows as possible move. That they do not move back when rows are
appended is the work of `remembered`.

Rows with one question are one group, that of the first of them, unless splits.groupBy names another, or they are more
than the smallest held-out split has: a set of one question for all rows would be in one split.

With splits.stratifyBy a place takes the hash's part: places are spread evenly over [0, 2^64) within each value of the
column, in the order of the rows. Rows that are appended at the end then move no other row. `engine.dividing` has it all
as SQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from hone_api.dataset.dataset import Splits

_SPACE = 2**64


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
        validation, test = share_of(splits.validation), share_of(splits.test)
        return cls(int(validation * _SPACE), int((validation + test) * _SPACE))

    def see(self, value: int) -> None:
        """Note that a row has this hash; what is kept does not grow with the rows."""
        if value not in self._highest:
            self._highest = sorted([*self._highest, value], reverse=True)[:2]
        if value < self.validation_end:
            self._in_validation = True
        elif value not in self._lowest_above:
            self._lowest_above = sorted([*self._lowest_above, value])[:2]

    def see_all(self, values: Iterable[int]) -> None:
        """Note several hashes."""
        for value in values:
            self.see(value)

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


def wanted(splits: Splits) -> list[str]:
    """Names of the splits whose share is above zero."""
    validation, test = share_of(splits.validation), share_of(splits.test)
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    return [name for name, share in shares.items() if share > 0]


def share_of(percent: str) -> Decimal:
    return Decimal(percent.removesuffix("%")) / 100
