"""Shares of Datasets in what is trained on: read, added up and refused in one place, in exact arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

TOLERANCE = Fraction(2, 10_000)
"""How far shares may be from 100 % together: three times 33.33 % is meant as all."""


def share_of(percent: str) -> Fraction:
    """'5%' as 1/20."""
    return Fraction(Decimal(percent.removesuffix("%"))) / 100


def total_of(shares: Sequence[str | None]) -> Fraction:
    """The sum of the shares; None if an entry has none."""
    return sum((share_of(share) for share in shares if share is not None), Fraction(0))


def share_problem(
    shares: Sequence[str | None], word: str = "shares", rest: str = "the entries that have none"
) -> str | None:
    """Why these cannot be the shares of one whole; None: they can.

    Args:
        shares: such as '5%'; entries with None share what is left. Without any share, all entries go in whole.
        word: what the shares are called where they are set.
        rest: the entries without a share, in words.
    """
    if all(share is None for share in shares):
        return None
    total = total_of(shares)
    together = f"the {word} are {float(100 * total):g}% together"
    if None in shares:
        return f"{together}, nothing is left for {rest}" if total >= 1 else None
    if abs(total - 1) <= TOLERANCE:
        return None
    return f"{together}, not 100%"
