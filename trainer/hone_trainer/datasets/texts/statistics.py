"""Lengths of rows."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hone_api.dataset.dataset_status import OverContext, TokenStatistics
from hone_trainer.datasets.readers.rows import Record, RowError
from hone_trainer.datasets.texts.texts import Texts, texts_of

BYTES_PER_TOKEN = 4
"""No model is known when rows are materialized. Tokenizers make a token of about four characters of English, and of
fewer where a character is several bytes: so bytes of UTF-8 are nearer to tokens than characters are."""
CONTEXTS = (512, 1024, 2048, 4096, 8192, 32768)
"""Usual values of training.maxLength."""


def length_of(record: Record) -> int:
    """Tokens of the record's texts, estimated, without the template around them; at least 1."""
    return length_of_texts(texts_of(record))


def length_of_texts(parts: Texts) -> int:
    """As `length_of`."""
    size = sum([len(text) if text.isascii() else len(text.encode()) for _, text in parts])
    return max(1, -(-size // BYTES_PER_TOKEN))


def check_length(parts: Texts, most: int | None) -> None:
    """Refuse a record over checks.maxTokens, by its texts.

    Raises:
        RowError: TooLong.
    """
    if most is not None and (length := length_of_texts(parts)) > most:
        raise RowError("TooLong", f"about {length} tokens, checks.maxTokens is {most}")


class LengthHistogram:
    """Counts rows by their estimated length."""

    def __init__(self, rows: dict[int, int] | None = None) -> None:
        self._rows = Counter(rows or {})

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
