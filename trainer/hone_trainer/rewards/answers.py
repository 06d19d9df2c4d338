"""Finds the final answer in a text: after GSM8K's '####', in \\boxed{}, or the last of its kind. Pure.

The expressions are RE2's: models write texts on which a backtracking engine takes quadratic time.
"""

from __future__ import annotations

from fractions import Fraction

import re2

_MARK = re2.compile(r"####[ \t]*([^\n]*)")
_NUMBER = re2.compile(r"[-+−]?\s?[$€£]?\s?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?:\s?/\s?\d+)?")
_FRACTION = re2.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_FORMULA = re2.compile(r"(?s)\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_PLAIN = str.maketrans({"−": "-", **dict.fromkeys(" \t\n,$€£")})
_BOXED = "\\boxed{"
MAX_DIGITS = 400
"""Longer numbers do not count as answers, and arithmetic with them takes time."""


def marked(text: str) -> str | None:
    """The answer after the last '####' or in the last \\boxed{}, whichever comes last."""
    marks = list(_MARK.finditer(text))
    start = text.rfind(_BOXED)
    if start >= 0 and (not marks or start > marks[-1].start()):
        return _braced(text, start + len(_BOXED))
    return marks[-1][1].strip() if marks else None


def last_formula(text: str) -> str:
    """The last formula between dollars or LaTeX brackets, else the last line that is not empty."""
    formulas = list(_FORMULA.finditer(text))
    if formulas:
        groups: tuple[str | None, ...] = formulas[-1].groups()
        return next(group for group in groups if group is not None).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def last_number(text: str) -> Fraction | None:
    """The last number of a text, exact: 1,234 and $5.50 and 3/4 and \\frac{3}{4} and 1e3."""
    text = _FRACTION.sub(r" \1/\2 ", text)
    candidates = [match[0] for match in _NUMBER.finditer(text) if any(c.isdigit() for c in match[0])]
    return _parse(candidates[-1]) if candidates else None


def _parse(text: str) -> Fraction | None:
    plain = text.translate(_PLAIN)
    if len(plain) > MAX_DIGITS:
        return None
    top, _, bottom = plain.partition("/")
    try:
        return Fraction(top) / Fraction(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return None


def _braced(text: str, start: int) -> str | None:
    """Text up to the brace that closes the one before `start`."""
    depth = 1
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start:index].strip()
    return None
