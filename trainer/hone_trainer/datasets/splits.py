"""Which split a row is in: by a hash of the seed and its group, so that appended rows move no other row.

The hash is spread over [0, 2^64). The lowest values are validation, the next are test, the rest is train. Equal rows,
and rows of one group, have one hash and cannot cross. In small data a wanted split can come out empty: then a bound
moves just far enough to give it one hash, i.e. as few rows as possible move.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from decimal import Decimal

from hone_api.dataset import Splits

_SPACE = 2**64


def hash_of(key: bytes, seed: int) -> int:
    """A number in [0, 2^64) that depends on key and seed alone."""
    return int.from_bytes(hashlib.sha256(b"%d\0" % seed + key).digest()[:8], "big")


@dataclass
class Division:
    """Bounds of the splits. Show it every hash with `see`, then `settle`, then ask `split_of`."""

    validation_end: int
    test_end: int
    _highest: int = -1
    _in_validation: bool = False
    _lowest_above: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, splits: Splits) -> Division:
        """The division that the shares ask for."""
        validation, test = _share(splits.validation), _share(splits.test)
        return cls(int(validation * _SPACE), int((validation + test) * _SPACE))

    def see(self, value: int) -> None:
        """Note that a row has this hash; what is kept does not grow with the rows."""
        self._highest = max(self._highest, value)
        if value < self.validation_end:
            self._in_validation = True
        elif value not in self._lowest_above:
            self._lowest_above = sorted([*self._lowest_above, value])[:2]

    def settle(self) -> None:
        """Move the bound of a wanted split that would be empty, by one hash."""
        wants_test, wants_train = self.test_end > self.validation_end, self.test_end < _SPACE
        lowest = list(self._lowest_above)
        if self.validation_end and not self._in_validation and lowest:
            self.validation_end = lowest.pop(0) + 1
        self.test_end = max(self.test_end, self.validation_end)
        if wants_test and lowest and lowest[0] >= self.test_end:
            self.test_end = lowest[0] + 1
        if wants_train and 0 <= self._highest < self.test_end:
            self.test_end = self._highest
            self.validation_end = min(self.validation_end, self.test_end)

    def split_of(self, value: int) -> str:
        """train, validation or test."""
        if value < self.validation_end:
            return "validation"
        return "test" if value < self.test_end else "train"


def wanted(splits: Splits) -> list[str]:
    """Names of the splits whose share is above zero."""
    validation, test = _share(splits.validation), _share(splits.test)
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    return [name for name, share in shares.items() if share > 0]


def _share(percent: str) -> Decimal:
    return Decimal(percent.removesuffix("%")) / 100
