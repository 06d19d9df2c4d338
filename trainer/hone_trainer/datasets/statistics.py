"""Length of rows and exact duplicates, in memory that hardly grows with the rows."""

from __future__ import annotations

from array import array
from collections import Counter

from hone_api.dataset import TokenStatistics
from hone_trainer.datasets.rows import Record

CHARACTERS_PER_TOKEN = 4
"""No model is known when rows are materialised; about four characters of English make a token."""


class Lengths:
    """Counts rows by their length in characters/4, rounded up."""

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()

    def see(self, record: Record) -> None:
        """Count one record: the characters of its texts, without the template around them."""
        self._rows[-(-_characters(record) // CHARACTERS_PER_TOKEN)] += 1

    def statistics(self) -> TokenStatistics | None:
        """None when no row was seen."""
        rows = self._rows.total()
        if not rows:
            return None
        total = sum(length * count for length, count in self._rows.items())
        return TokenStatistics(
            total=total,
            mean=round(total / rows),
            median=self._quantile(0.5, rows),
            p95=self._quantile(0.95, rows),
            max=max(self._rows),
        )

    def _quantile(self, share: float, rows: int) -> int:
        """The smallest length that at least this share of rows does not exceed."""
        seen = 0
        for length in sorted(self._rows):
            seen += self._rows[length]
            if seen >= share * rows:
                return length
        raise AssertionError("no rows")


class Duplicates:
    """Counts rows that repeat an earlier one exactly; 8 bytes a row."""

    def __init__(self) -> None:
        self._hashes = array("Q")

    def see(self, value: int) -> None:
        """Note a row by a 64-bit hash of its content."""
        self._hashes.append(value)

    def count(self) -> int:
        """Rows that repeat an earlier one."""
        import numpy

        return len(self._hashes) - len(numpy.unique(numpy.frombuffer(self._hashes, dtype=numpy.uint64)))


def _characters(record: Record) -> int:
    if "messages" in record:
        return sum(len(message["content"]) for message in record["messages"])
    return sum(len(text) for text in record.values())
