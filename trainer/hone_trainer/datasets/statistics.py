"""Length of rows and exact duplicates, in memory that hardly grows with the rows."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from hone_api.dataset.dataset_status import OverContext, TokenStatistics
from hone_trainer.datasets.rows import Record, RowError
from hone_trainer.datasets.texts import texts

BYTES_PER_TOKEN = 4
"""No model is known when rows are materialized. Tokenizers make a token of about four characters of English, and of
fewer where a character is several bytes: so bytes of UTF-8 are nearer to tokens than characters are."""
CONTEXTS = (512, 1024, 2048, 4096, 8192, 32768)
"""Usual values of training.maxLength."""


def length_of(record: Record) -> int:
    """Tokens of the record's texts, estimated, without the template around them; at least 1."""
    size = sum(len(text) if text.isascii() else len(text.encode()) for _, text in texts(record))
    return max(1, -(-size // BYTES_PER_TOKEN))


def check_length(record: Record, most: int | None) -> None:
    """Refuse a record over checks.maxTokens.

    Raises:
        RowError: TooLong.
    """
    if most is not None and (length := length_of(record)) > most:
        raise RowError("TooLong", f"about {length} tokens, checks.maxTokens is {most}")


class LengthHistogram:
    """Counts rows by their estimated length."""

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()

    def see(self, record: Record) -> None:
        """Count one record."""
        self._rows[length_of(record)] += 1

    def add(self, other: LengthHistogram) -> None:
        """Count the rows of another one."""
        self._rows.update(other._rows)

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
            over=[self._over(context, rows) for context in CONTEXTS],
        )

    def histogram(self) -> list[tuple[int, int]]:
        """(up to, rows) of lengths between powers of two."""
        if not self._rows:
            return []
        bounds = [2**power for power in range(3, max(4, (max(self._rows) - 1).bit_length() + 1))]
        bins = pairwise([0, *bounds])
        return [(high, sum(n for length, n in self._rows.items() if low < length <= high)) for low, high in bins]

    def _over(self, context: int, rows: int) -> OverContext:
        longer = sum(count for length, count in self._rows.items() if length > context)
        return OverContext(context=context, rows=longer, share=f"{100 * longer / rows:.1f}%")

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

    def add(self, values: array[int]) -> None:
        """Note rows by 64-bit hashes of their content."""
        self._hashes.extend(values)

    @property
    def hashes(self) -> Sequence[int]:
        """Of every row, in order."""
        return self._hashes

    def count(self) -> int:
        """Rows that repeat an earlier one."""
        import numpy

        return len(self._hashes) - len(numpy.unique(numpy.frombuffer(self._hashes, dtype=numpy.uint64)))
