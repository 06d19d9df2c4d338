"""Symbolic equality of two answers, in a worker: sympy can take minutes over an expression of ten characters.

Only math-verify's LaTeX reader is used. Its reader of plain expressions ends in sympy's `parse_expr`, which evaluates
its text as Python.
"""

from __future__ import annotations

from math_verify import LatexExtractionConfig, parse, verify


def equal(gold: str, answer: str) -> bool:
    """Whether the answer is mathematically the gold one; both in LaTeX without delimiters, e.g. \\frac{1}{2} or 0.5."""
    readers = [LatexExtractionConfig()]
    known, found = (
        parse(f"${text}$", extraction_config=readers, fallback_mode="no_fallback", parsing_timeout=None)
        for text in (gold, answer)
    )
    return bool(known and found and verify(known, found, timeout_seconds=None))
