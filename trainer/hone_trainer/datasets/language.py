"""The language of a text, offline, by py3langid: 97 languages, a naive Bayes model that the package carries."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from hone_api.dataset.dataset_status import LanguageRows

UNKNOWN, OTHER = "unknown", "other"
SAMPLE_ROWS = 2000
ADVISED_ROWS = 500
"""Rows of the sample that are identified where `checks.languages` refuses nothing: a share of 5 % is then right to 2
points, at a quarter of the time."""
_CHARACTERS = 1000
"""Of a text that are looked at: more change nothing."""
_LETTERS, _CERTAIN = 16, 0.5
_SHOWN = 7
_NO_LANGUAGE = "zxx"


def language_of(text: str) -> str:
    """ISO 639-1 of a text, or `unknown`: it has too few letters, or is code, or a mixture."""
    start = text[:_CHARACTERS]
    if sum(map(str.isalpha, start)) < _LETTERS:
        return UNKNOWN
    language, probability = _identifier().classify(start)
    return str(language) if probability >= _CERTAIN and language != _NO_LANGUAGE else UNKNOWN


def languages_of(texts: Sequence[str]) -> list[str]:
    """`language_of` each text: 1.4 ms of a core for a text of 1000 characters, so workers do this."""
    return [language_of(text) for text in texts]


class LanguageSample:
    """A uniform sample of rows by the hash of their content: the same rows give the same sample, in any order."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []  # of negative hashes: the largest is the first to go

    def see(self, value: int, text: str) -> bool:
        """Note a row; value is its hash in [0, 2^64). Whether it is in the sample now."""
        if len(self._heap) < SAMPLE_ROWS:
            heapq.heappush(self._heap, (-value, text[:_CHARACTERS]))
        elif -value > self._heap[0][0]:
            heapq.heapreplace(self._heap, (-value, text[:_CHARACTERS]))
        else:
            return False
        return True

    def add(self, other: LanguageSample) -> None:
        """The sample of both."""
        for value, text in other._heap:
            self.see(-value, text)

    def sieve(self) -> LanguageSample:
        """A new sample, of those rows alone that enter this one."""
        return _Sieved(self)

    def texts(self) -> list[str]:
        """The beginnings of the rows, in an order that depends on the rows alone."""
        return [text for _, text in sorted(self._heap)]

    def count(self) -> Counter[str]:
        """Rows of the sample by language."""
        return Counter(languages_of(self.texts()))


class _Sieved(LanguageSample):
    def __init__(self, whole: LanguageSample) -> None:
        super().__init__()
        self._whole = whole

    def see(self, value: int, text: str) -> bool:
        return self._whole.see(value, text) and super().see(value, text)

    def __reduce__(self) -> tuple[Any, ...]:  # without the whole
        return _restored, (self._heap,)


def _restored(heap: list[tuple[int, str]]) -> LanguageSample:
    sample = LanguageSample()
    sample._heap = heap
    return sample


def shares(rows: Counter[str]) -> list[LanguageRows]:
    """The most common languages, the rest as `other`; `unknown` last."""
    total = rows.total()
    identified = [(language, count) for language, count in rows.most_common() if language != UNKNOWN]
    rest = sum(count for _, count in identified[_SHOWN - 1 :])
    entries = [*identified[: _SHOWN - 1], (OTHER, rest), (UNKNOWN, rows[UNKNOWN])]
    return [
        LanguageRows(language=language, rows=count, share=f"{100 * count / total:.1f}%")
        for language, count in entries
        if count
    ]


def share_in(rows: Counter[str], languages: list[str]) -> float | None:
    """Share of rows in the wanted languages among rows whose language is known; None if there are none."""
    identified = rows.total() - rows[UNKNOWN]
    return sum(rows[language] for language in set(languages)) / identified if identified else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
