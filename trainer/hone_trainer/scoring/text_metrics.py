"""How near an answer is to a reference. Pure; each is 0 to 1.

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
    """As SQuAD has it, e.g. with $ and +, and of every script."""
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def tokens(text: str) -> list[str]:
    """Words as in Google's rouge_score, but of every script: lower case, letters and digits alone."""
    return re.findall(r"[^\W_]+", text.lower())


def exact_match(answer: str, reference: str) -> float:
    """1 when both have the same words in the same order."""
    return float(words(answer) == words(reference))


def f1(answer: str, reference: str) -> float:
    """Harmonic mean of the shares of common words in answer and reference (SQuAD)."""
    found, wanted = words(answer), words(reference)
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004, ROUGE-L), without stemming."""
    found, wanted = tokens(answer), tokens(reference)
    if not found or not wanted:
        return float(found == wanted)
    return 2 * _common_subsequence(found, wanted) / (len(found) + len(wanted))


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
"""By their names in the API."""
