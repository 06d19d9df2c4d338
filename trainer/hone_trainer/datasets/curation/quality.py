"""Quality of a text by rules that do not depend on its length.

Sources: MassiveText's quality filters (Rae et al. 2021, Gopher, A.1.1) and C4 (Raffel et al. 2020, 2.2),
without those that measure web pages: their length, menus and braces. They were made for English.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from hone_trainer.datasets.texts.words import ngrams, split_words

_STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_BULLET = re.compile(r"\s*(?:[-*•‣●]|\d+[.)])\s")
_SYMBOL = re.compile(r"#|\.\.\.|…")
_FEW_WORDS = 20
"""A rule about shares of words is not meaningful for fewer words."""


class _SplitText(NamedTuple):
    text: str
    words: list[str]
    lines: list[str]


def _mean_word_length(t: _SplitText) -> bool:
    return not t.words or 3 <= sum(map(len, t.words)) / len(t.words) <= 10


def _symbols(t: _SplitText) -> bool:
    return len(_SYMBOL.findall(t.text)) <= 0.1 * max(len(t.words), 10)


def _bullets(t: _SplitText) -> bool:
    return len(t.lines) < 3 or sum(bool(_BULLET.match(line)) for line in t.lines) < 0.9 * len(t.lines)


def _ellipses(t: _SplitText) -> bool:
    return len(t.lines) < 3 or sum(line.rstrip().endswith(("...", "…")) for line in t.lines) < 0.3 * len(t.lines)


def _alphabetic(t: _SplitText) -> bool:
    return sum(any(map(str.isalpha, word)) for word in t.words) >= 0.8 * len(t.words)


def _stop_words(t: _SplitText) -> bool:
    return len(t.words) < _FEW_WORDS or len(_STOP_WORDS.intersection(t.words)) >= 2


def _repeated_lines(t: _SplitText) -> bool:
    return len(t.lines) < 3 or len(t.lines) - len(set(t.lines)) <= 0.3 * len(t.lines)


def _repeated_phrases(t: _SplitText) -> bool:
    if len(t.words) < _FEW_WORDS:
        return True
    phrase, count = Counter(ngrams(t.words, 4)).most_common(1)[0]
    return count == 1 or count * len(phrase) <= 0.16 * len(t.text)


def _placeholder(t: _SplitText) -> bool:
    return "lorem ipsum" not in t.text.lower()


def _boilerplate(t: _SplitText) -> bool:
    text = t.text.lower()
    return not any(sign in text for sign in ("enable javascript", "terms of use", "cookie policy", "privacy policy"))


RULES: dict[str, Callable[[_SplitText], bool]] = {
    "MeanWordLength": _mean_word_length,
    "Symbols": _symbols,
    "Bullets": _bullets,
    "Ellipses": _ellipses,
    "Alphabetic": _alphabetic,
    "StopWords": _stop_words,
    "RepeatedLines": _repeated_lines,
    "RepeatedPhrases": _repeated_phrases,
    "Placeholder": _placeholder,
    "Boilerplate": _boilerplate,
}
"""Whether a text keeps the rule."""


def broken_rules(text: str) -> list[str]:
    """Names of the rules that the text breaks."""
    seen = _SplitText(text, split_words(text), [line for line in text.splitlines() if line.strip()])
    return [name for name, keeps in RULES.items() if not keeps(seen)]
