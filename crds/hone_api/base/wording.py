"""Numbers with the word that they count, and lists, as people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text without control characters other than line ends and tabs: a terminal would execute them."""
    return text if text.isprintable() else _CONTROL.sub(" ", text)


def counted(number: int, one: str, several: str = "") -> str:
    """The number and its word, e.g. "1 row" or "1,289 rows".

    Args:
        one: the word after 1, with its verb if one follows: "row has".
        several: the word after any other number; by default `one` with an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def duration(seconds: int) -> str:
    """A time for people, in at most two units: 45s, 8m, 3h12m, 2d4h."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes == 0:
        return f"{seconds}s"
    if hours == 0:
        return f"{minutes}m"
    if days == 0:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"


def listed(words: Sequence[str]) -> str:
    """The words as a list in a sentence, e.g. "Number, Math and ExactMatch"."""
    return " and ".join([*filter(None, [", ".join(words[:-1])]), *words[-1:]])


def are(number: int) -> str:
    """The verb after a number and its word: "is" or "are"."""
    return "is" if number == 1 else "are"
