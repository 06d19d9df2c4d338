"""Similarity of an answer to a reference. Pure; each metric is 0 to 1.

Words are those of SQuAD's evaluation (Rajpurkar et al. 2016): lower case, without punctuation and English articles.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def words(text: str) -> list[str]:
    """Words of a text, normalised."""
    return _ARTICLES.sub(" ", "".join(c for c in text.lower() if not _is_punctuation(c))).split()


def _is_punctuation(character: str) -> bool:
    """As in SQuAD, e.g. with $ and +, and for every script."""
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def tokens(text: str) -> list[str]:
    """Words as in Google's rouge_score, for every script: lower case, only letters and digits."""
    return re.findall(r"[^\W_]+", text.lower())


def exact_match(answer: str, reference: str) -> float:
    """1 if both have the same words in the same order."""
    return float(words(answer) == words(reference))


def f1(answer: str, reference: str) -> float:
    """Harmonic mean of the shares of common words in answer and reference (SQuAD)."""
    actual, expected = words(answer), words(reference)
    if not actual or not expected:
        return float(actual == expected)
    common = sum((Counter(actual) & Counter(expected)).values())
    return 2 * common / (len(actual) + len(expected))


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004, ROUGE-L), without stemming."""
    actual, expected = tokens(answer), tokens(reference)
    if not actual or not expected:
        return float(actual == expected)
    return 2 * _common_subsequence(actual, expected) / (len(actual) + len(expected))


def _common_subsequence(left: list[str], right: list[str]) -> int:
    lengths = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for column, other in enumerate(right, 1):
            above = lengths[column]
            lengths[column] = diagonal + 1 if word == other else max(above, lengths[column - 1])
            diagonal = above
    return lengths[-1]


TEXT_METRICS: dict[str, Callable[[str, str], float]] = {"ExactMatch": exact_match, "F1": f1, "RougeL": rouge_l}
"""Metrics by their names in the API."""
