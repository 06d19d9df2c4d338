"""Numbers with the word that they count, and lists, as people write them."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, one: str, several: str = "") -> str:
    """The number and its word, e.g. "1 row" or "1,289 rows".

    Args:
        one: the word after 1, with its verb if one follows: "row has".
        several: the word after any other number; by default `one` with an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def listed(words: Sequence[str]) -> str:
    """The words as a list in a sentence, e.g. "Number, Math and ExactMatch"."""
    return " and ".join([*filter(None, [", ".join(words[:-1])]), *words[-1:]])


def are(number: int) -> str:
    """The verb after a number and its word: "is" or "are"."""
    return "is" if number == 1 else "are"
