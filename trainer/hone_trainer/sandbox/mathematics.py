"""Compares two answers symbolically, in a worker: sympy can take minutes for an expression of ten characters.

Only math-verify's LaTeX parser is used. Its parser of plain expressions calls sympy's `parse_expr`, which evaluates
its text as Python.
"""

from __future__ import annotations

from math_verify import LatexExtractionConfig, parse, verify


def equal(gold: str, answer: str) -> bool:
    """Whether the answer is mathematically equal to the gold answer; both LaTeX without delimiters, e.g. \\frac{1}{2}
    or 0.5."""
    readers = [LatexExtractionConfig()]
    expected, actual = (
        parse(f"${text}$", extraction_config=readers, fallback_mode="no_fallback", parsing_timeout=None)
        for text in (gold, answer)
    )
    return bool(expected and actual and verify(expected, actual, timeout_seconds=None))
