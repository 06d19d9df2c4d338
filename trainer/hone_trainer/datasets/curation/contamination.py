"""Contamination: rows that hold a row of an evaluation set, whose score would then mean nothing.

A row is contaminated when it holds a share of the word n-grams of an evaluation row's prompt or of its answer (as
GPT-3, appendix C, and Llama 3, section 5.1.4, by n-grams of 13 and 8). As there, n-grams that many evaluation rows have
are their template and count for none. A text with fewer words than an n-gram is too common to count by itself: such a
prompt must be the row's whole prompt, and such an answer is not looked for.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hone_api.dataset.curation import Contamination as Settings
from hone_api.plan import DatasetInput, MaterializePlan
from hone_trainer.datasets.curation.base import CuratedRow, Each
from hone_trainer.datasets.readers.rows import Record
from hone_trainer.datasets.texts.texts import ValidRow, sides
from hone_trainer.datasets.texts.words import ngrams, split_words, unaccented

_LEAST = 5
"""n-grams that count at least, or half of them in a text of fewer than twice as many: short questions of one form share
some, e.g. all but the name of a city."""
_TEMPLATE_ROWS = 10
"""GPT-3's bound: an n-gram that occurs more often is not evidence."""


def step(plan: MaterializePlan) -> Each | None:
    """The step that curation.contamination asks for; the evaluation sets are read when it is made."""
    settings = plan.curation.contamination
    if settings is None:
        return None
    return Each(Index(settings, plan.evaluation_sets).judge)


class Index:
    """Word n-grams of the evaluation sets: some 200 bytes of memory for each."""

    def __init__(self, settings: Settings, sets: list[DatasetInput]) -> None:
        self._length = settings.ngram
        self._names: list[str] = []
        self._texts_of: dict[str, list[int]] = {}
        """Which evaluation texts have an n-gram."""
        self._prompts: dict[str, str] = {}
        """Names of short prompts."""
        hashes: set[str] = set()
        for source in sets:
            for number, record in enumerate(_records(source.path), 1):
                self._add(record, f"row {number} of {'/'.join(filter(None, (source.name, source.split)))}", hashes)
        self._texts_of = {gram: texts for gram, texts in self._texts_of.items() if len(texts) <= _TEMPLATE_ROWS}
        share = float(settings.overlap.removesuffix("%")) / 100
        sizes = Counter(itertools.chain.from_iterable(self._texts_of.values()))
        self._needed = {
            text: max(math.ceil(share * size), min(_LEAST, math.ceil(size / 2))) for text, size in sizes.items()
        }

    def _add(self, record: Record, name: str, hashes: set[str]) -> None:
        prompt, answer = (split_words(unaccented(side)) for side in sides(record))
        if 0 < len(prompt) < self._length:
            self._prompts.setdefault(" ".join(prompt), name)
        for text in (prompt, answer):
            if len(text) >= self._length and (whole := " ".join(text)) not in hashes:
                hashes.add(whole)
                for gram in set(ngrams(text, self._length)):
                    self._texts_of.setdefault(gram, []).append(len(self._names))
                self._names.append(name)

    def judge(self, row: ValidRow) -> CuratedRow:
        """Removed with the evaluation row that it holds the most of."""
        prompt = self._prompts.get(" ".join(split_words(unaccented(sides(row.record)[0]))))
        if prompt is not None:
            return CuratedRow(row, removed=f"has the prompt of {prompt}")
        grams = self._texts_of.keys() & ngrams(split_words(unaccented(row.text)), self._length)
        met = Counter(itertools.chain.from_iterable(self._texts_of[gram] for gram in grams))
        held = {text: count / self._needed[text] for text, count in met.items() if count >= self._needed[text]}
        if not held:
            return CuratedRow(row)
        most = min(held, key=lambda text: (-held[text], text))
        return CuratedRow(row, removed=f"holds {met[most]} {self._length}-grams of {self._names[most]}")


def _records(path: str) -> Iterator[Record]:
    with open(Path(path), encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
