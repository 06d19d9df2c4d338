"""Near duplicates: rows whose word n-grams overlap. The first of each cluster stays, or the cluster is one group.

MinHash finds the pairs (`lsh`), their exact Jaccard similarity confirms them, and clusters are what pairs connect, as
in Lee et al. 2022, Deduplicating Training Data Makes Language Models Better.

Several questions about one document share nearly all words but are not duplicates. So a row is removed only for
one that has its answer, in about the same words, or its very question. In the splits they are one group all the same:
who has read a document in training is not tested on it.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from hone_api.dataset.curation import NearDuplicates as Settings
from hone_api.plan import MaterializePlan
from hone_trainer.datasets import batches
from hone_trainer.datasets.curation import lsh
from hone_trainer.datasets.curation.base import CuratedRow, Step
from hone_trainer.datasets.curation.kept_sketches import KeptSketches
from hone_trainer.datasets.curation.words import jaccard, ngrams, split_words
from hone_trainer.datasets.spool import Spool, ValidRow, parsed
from hone_trainer.datasets.texts import is_answer, texts
from hone_trainer.workers.parallel import Workers

_SETS_HELD = 256
_SAME_ANSWER = 0.5
"""Jaccard similarity from which two answers are the same one in other words. Edits of a row that is alike as a whole
leave more of its answer; another answer, even to a question of the same form, shares less."""


def step(plan: MaterializePlan) -> NearDuplicatesStep | None:
    """Removal, where curation.deduplicate is Near."""
    return NearDuplicatesStep(plan.curation.near_duplicates) if plan.curation.deduplicate == "Near" else None


def grouping(plan: MaterializePlan) -> NearDuplicateGroups | None:
    """Grouping, where splits.nearDuplicates asks for it and no near duplicates are left out anyway."""
    groups = plan.splits.near_duplicates == "Group" and plan.curation.deduplicate != "Near"
    return NearDuplicateGroups(plan.curation.near_duplicates) if groups else None


_FEW_WORDS = 5
_SIGNS = re.compile(r"(?<!\w)-|!=|(?<!\w)!(?=\w)|[^\w\s.,;:!?'\"`*()\[\]…–—。，、！？-]")
"""Of formulas, code and emoji; neither punctuation nor Markdown."""
_ANSWER_HEAD = 40
"""Words of an answer that distinguish rows about one document before they are compared."""


class Clusters:
    """Disjoint sets of rows by index; each is known by its first row. 8 bytes a row."""

    def __init__(self, count: int) -> None:
        self._parent = array("q", range(count))

    def first(self, index: int) -> int:
        """The first row of the cluster that this one is in."""
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def joined(self) -> Iterator[tuple[int, int]]:
        """(first row of its cluster, row) for each row that is not the first."""
        for index in range(len(self._parent)):
            if (first := self.first(index)) != index:
                yield first, index

    def join(self, left: int, right: int) -> None:
        """Make the clusters of two rows one."""
        low, high = sorted((self.first(left), self.first(right)))
        self._parent[high] = low


class _Parts(NamedTuple):
    """What of a row is compared with another's."""

    every: set[str]
    """n-grams of all of it."""
    question: str
    answer: set[str]
    """n-grams."""
    label: bool | None = None
    """Of format KTO: the same answer called good and bad is a contradiction, and no duplicate."""

    def same_answer(self, other: _Parts) -> bool:
        return self.answer == other.answer or jaccard(self.answer, other.answer) >= _SAME_ANSWER


def _words(row: ValidRow) -> tuple[list[str], list[str], list[str]]:
    """Words of all of a row, of what it asks, and of what it answers."""
    every: list[str] = []
    question_words: list[str] = []
    answered: list[str] = []
    for field, text in texts(row.record):
        text_words = split_words(text)
        side = answered if is_answer(field) else question_words
        if len(text_words) < (_FEW_WORDS if side is answered else 1) and (signs := _SIGNS.findall(text)):
            # x = -1 is not x = 1, nor C++ C#, and an emoji is not a word
            text_words[:1] = ["".join([*signs, *text_words[:1]])]
        every += text_words
        side += text_words
    return every, question_words, answered


class _Pairs(NamedTuple):
    """Pairs of rows to compare, by index, and the rows as the spool has them."""

    pairs: list[tuple[int, int]]
    texts: dict[int, bytes]


class _Likeness(NamedTuple):
    """What two rows have in common."""

    similarity: float
    same_answer: bool
    is_alike: bool
    """Whether they are near duplicates."""


class _Finder:
    """Rows into clusters."""

    def __init__(self, settings: Settings, by_answer: bool) -> None:
        self._length = settings.ngram
        self._least = float(settings.similarity.removesuffix("%")) / 100
        self._by_answer = by_answer
        """Whether rows whose questions and answers differ are none."""
        self._kept: KeptSketches | None = None

    def keep(self, folder: Path, identity: str, most: int) -> None:
        """As `Step.keep`: the sketches."""
        self._kept = KeptSketches(folder / "sketches", f"{identity} {self._by_answer}", most)

    def parts(self, row: ValidRow) -> _Parts:
        every, question_words, answered = _words(row)
        grams = set(ngrams(every, self._length))
        if not self._by_answer:
            return _Parts(grams, "", set())
        return _Parts(grams, " ".join(question_words), set(ngrams(answered, self._length)), row.record.get("label"))

    def sketches(self, rows: Sequence[ValidRow]) -> lsh.Sketches:
        """What near duplicates are found by."""
        return lsh.sketch(map(self._compared, rows), self._least)

    def _compared(self, row: ValidRow) -> lsh.Compared:
        every, question_words, answered = _words(row)
        if not self._by_answer:
            return lsh.Compared(ngrams(every, self._length))
        head = ngrams(answered[:_ANSWER_HEAD], self._length)
        return lsh.Compared(ngrams(every, self._length), " ".join(question_words), head)

    def fill(self, spool: Spool, rows: Iterator[ValidRow], room: Path, workers: Workers) -> Clusters:
        """Rows into the spool, and their clusters."""
        bands = lsh.Bands(room, self._least)
        apply = partial(self._kept.map, workers=workers) if self._kept else workers.map
        for batch, sketches in apply(self.sketches, batches.of_rows(rows)):
            for row in batch:
                spool.append(row)
            bands.add(sketches)
        clusters = Clusters(len(spool))
        apart = (pair for pair in bands.pairs() if clusters.first(pair[0]) != clusters.first(pair[1]))
        for pair, likeness in self.compare(spool, apart, workers):
            if likeness.is_alike:
                clusters.join(*pair)
        return clusters

    def compare(
        self, spool: Spool, pairs: Iterable[tuple[int, int]], workers: Workers
    ) -> Iterator[tuple[tuple[int, int], _Likeness]]:
        """Each pair of rows with what they have in common, in order. Pairs are asked for some batches ahead."""
        for batch, likenesses in workers.map(self.likenesses, _batches(spool, pairs)):
            yield from zip(batch.pairs, likenesses, strict=True)

    def likenesses(self, batch: _Pairs) -> list[_Likeness]:
        """What the rows of each pair have in common."""
        held = lru_cache(_SETS_HELD)(lambda index: self.parts(parsed(batch.texts[index])))
        return [self._likeness(held(low), held(high)) for low, high in batch.pairs]

    def _likeness(self, left: _Parts, right: _Parts) -> _Likeness:
        similarity, same_answer = jaccard(left.every, right.every), left.same_answer(right)
        is_duplicate = left.label == right.label and (same_answer or left.question == right.question)
        return _Likeness(similarity, same_answer, is_duplicate and similarity >= self._least)


def _batches(spool: Spool, pairs: Iterable[tuple[int, int]]) -> Iterator[_Pairs]:
    """Pairs with the texts of their rows, each once in a batch: workers do not read the spool."""
    batch, size = _Pairs([], {}), 0
    for pair in pairs:
        new = {index: spool.text(index) for index in pair if index not in batch.texts}
        if batch.pairs and (len(batch.pairs) == batches.ROWS or size + sum(map(len, new.values())) > batches.BYTES):
            yield batch
            batch, size = _Pairs([], {}), 0
            new = {index: spool.text(index) for index in pair}
        batch.pairs.append(pair)
        batch.texts.update(new)
        size += sum(map(len, new.values()))
    if batch.pairs:
        yield batch


class NearDuplicatesStep(Step):
    """Keeps the first row of each cluster."""

    def __init__(self, settings: Settings) -> None:
        self._finder = _Finder(settings, by_answer=True)

    @property
    def work(self) -> Sequence[Callable[..., Any]]:
        """As `Step.work`."""
        return (self._finder.sketches, self._finder.likenesses)

    def keep(self, folder: Path, identity: str, most: int) -> None:
        """As `Step.keep`."""
        self._finder.keep(folder, identity, most)

    def run(self, rows: Iterator[ValidRow], room: Path, workers: Workers) -> Iterator[CuratedRow]:
        """As `Step.run`."""
        with Spool(room / "rows") as spool:
            clusters = self._finder.fill(spool, rows, room, workers)
            verdicts = self._finder.compare(spool, clusters.joined(), workers)
            for index, row in enumerate(spool):
                if clusters.first(index) == index:
                    yield CuratedRow(row)
                else:
                    (first, _), likeness = next(verdicts)
                    yield _removed(row, spool.number(first), likeness)


def _removed(row: ValidRow, first: int, likeness: _Likeness) -> CuratedRow:
    """first: the number of the row that stays."""
    reason = f"is like row {first} (Jaccard similarity {likeness.similarity:.0%})"
    if likeness.same_answer:
        return CuratedRow(row, removed=reason)
    return CuratedRow(row, removed=f"{reason} with another answer", other_answer=True)


class NearDuplicateGroups(Step):
    """Removes nothing: the rows of a cluster become one group of the splits, with the groups that they are in."""

    def __init__(self, settings: Settings) -> None:
        self._finder = _Finder(settings, by_answer=False)

    @property
    def work(self) -> Sequence[Callable[..., Any]]:
        """As `Step.work`."""
        return (self._finder.sketches, self._finder.likenesses)

    def keep(self, folder: Path, identity: str, most: int) -> None:
        """As `Step.keep`."""
        self._finder.keep(folder, identity, most)

    def run(self, rows: Iterator[ValidRow], room: Path, workers: Workers) -> Iterator[CuratedRow]:
        """As `Step.run`."""
        with Spool(room / "rows") as spool:
            groups = _Groups()
            clusters = self._finder.fill(spool, rows, room, workers)
            for index, row in enumerate(spool):
                if (first := clusters.first(index)) != index:
                    groups.join(spool[first].group_key, row.group_key)
            for row in spool:
                group = groups.first(row.group_key)
                if group == row.group_key:
                    yield CuratedRow(row)
                else:
                    yield CuratedRow(replace(row, group=group), changed="goes to the split of a near duplicate")


class _Groups:
    """Disjoint sets of groups; only those that are joined take memory."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def first(self, group: str) -> str:
        while (parent := self._parent.get(group, group)) != group:
            group = parent
        return group

    def join(self, left: str, right: str) -> None:
        """The left one's first stays first: it came first in the source, and appended rows do not change it."""
        left, right = self.first(left), self.first(right)
        if left != right:
            self._parent[right] = left
