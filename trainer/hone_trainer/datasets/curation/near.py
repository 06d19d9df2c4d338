"""Near duplicates: rows whose word n-grams overlap. The first of each cluster stays, or the cluster is one group.

MinHash finds the pairs (`lsh`), their exact Jaccard similarity confirms them, and clusters are what pairs connect, as
in Lee et al. 2022, Deduplicating Training Data Makes Language Models Better.

Several questions about one document share nearly all words but are not duplicates. So a row is removed only for
one that has its answer, in about the same words, or its very question. In the splits they are one group all the same:
who has read a document in training is not tested on it.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from hone_api.dataset.curation import NearDuplicates as Settings
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation import lsh
from hone_trainer.datasets.curation.base import Global, Sketching
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.datasets.texts.texts import ValidRow, is_answer
from hone_trainer.datasets.texts.words import jaccard, ngrams, split_words
from hone_trainer.workers.parallel import Workers

_PAIRS, _BYTES = 256, 2**20
"""Of a batch of pairs that are compared."""
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
    """Disjoint sets of rows by number; each is known by its first row. Only rows that are joined take memory."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def first(self, row: int) -> int:
        """The first row of the cluster that this one is in."""
        path = []
        while (parent := self._parent.get(row, row)) != row:
            path.append(row)
            row = parent
        for passed in path:
            self._parent[passed] = row
        return row

    def joined(self) -> list[tuple[int, int]]:
        """(first row of its cluster, row) for each row that is not the first, in order."""
        return [(self.first(row), row) for row in sorted(self._parent)]

    def join(self, left: int, right: int) -> None:
        """Make the clusters of two rows one."""
        low, high = sorted((self.first(left), self.first(right)))
        if low != high:
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
    for field, text in row.texts:
        text_words = split_words(text)
        side = answered if is_answer(field) else question_words
        if len(text_words) < (_FEW_WORDS if side is answered else 1) and (signs := _SIGNS.findall(text)):
            # x = -1 is not x = 1, nor C++ C#, and an emoji is not a word
            text_words[:1] = ["".join([*signs, *text_words[:1]])]
        every += text_words
        side += text_words
    return every, question_words, answered


class _Pairs(NamedTuple):
    """Pairs of rows to compare, by number, and their lines."""

    pairs: list[tuple[int, int]]
    lines: dict[int, bytes]


class Likeness(NamedTuple):
    """What two rows have in common."""

    similarity: float
    same_answer: bool
    is_alike: bool
    """Whether they are near duplicates."""


class _Finder(Sketching):
    """Rows into clusters."""

    def __init__(self, settings: Settings, by_answer: bool) -> None:
        self._length = settings.ngram
        self.least = float(settings.similarity.removesuffix("%")) / 100
        self._by_answer = by_answer
        """Whether rows whose questions and answers differ are none."""

    @property
    def columns(self) -> int:
        """As `Sketching.columns`."""
        return lsh.bands(self.least) + lsh.SIDES

    def sketches(self, rows: Sequence[ValidRow]) -> Any:
        """As `Sketching.sketches`."""
        return lsh.sketch(map(self._compared, rows), self.least)

    def parts(self, row: ValidRow) -> _Parts:
        every, question_words, answered = _words(row)
        grams = set(ngrams(every, self._length))
        if not self._by_answer:
            return _Parts(grams, "", set())
        return _Parts(grams, " ".join(question_words), set(ngrams(answered, self._length)), row.record.get("label"))

    def _compared(self, row: ValidRow) -> lsh.Compared:
        every, question_words, answered = _words(row)
        if not self._by_answer:
            return lsh.Compared(ngrams(every, self._length))
        head = ngrams(answered[:_ANSWER_HEAD], self._length)
        return lsh.Compared(ngrams(every, self._length), " ".join(question_words), head)

    def clusters(self, rows: Relation, texts: Texts, workers: Workers) -> Clusters:
        """Those of the rows that are left; the texts get the lines of rows that may be alike."""
        lsh.find_pairs(rows, self.least)
        texts.add(rows.lines("SELECT low AS row FROM pairs UNION SELECT high FROM pairs"))
        clusters = Clusters()
        apart = (pair for pair in pairs_of(rows, "pairs") if clusters.first(pair[0]) != clusters.first(pair[1]))
        for pair, likeness in self.compare(texts, apart, workers):
            if likeness.is_alike:
                clusters.join(*pair)
        return clusters

    def compare(
        self, texts: Texts, pairs: Iterable[tuple[int, int]], workers: Workers
    ) -> Iterator[tuple[tuple[int, int], Likeness]]:
        """Each pair of rows with what they have in common, in order. Pairs are asked for some batches ahead."""
        for batch, likenesses in workers.map(self.likenesses, _batches(texts, pairs)):
            yield from zip(batch.pairs, likenesses, strict=True)

    def likenesses(self, batch: _Pairs) -> list[Likeness]:
        """What the rows of each pair have in common."""

        def parts(number: int) -> _Parts:
            line = batch.lines[number].decode()
            return self.parts(ValidRow(line, json.loads(line)))

        held = lru_cache(_SETS_HELD)(parts)
        return [self._likeness(held(low), held(high)) for low, high in batch.pairs]

    def _likeness(self, left: _Parts, right: _Parts) -> Likeness:
        similarity, same_answer = jaccard(left.every, right.every), left.same_answer(right)
        is_duplicate = left.label == right.label and (same_answer or left.question == right.question)
        return Likeness(similarity, same_answer, is_duplicate and similarity >= self.least)


def pairs_of(rows: Relation, table: str) -> Iterator[tuple[int, int]]:
    """The pairs of a table (low, high), in order."""
    for batch in rows.stream(f"SELECT low, high FROM {table} ORDER BY low, high"):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


class Texts:
    """Lines of some rows, in a file: 16 bytes of memory each."""

    def __init__(self, room: Path) -> None:
        room.mkdir(parents=True, exist_ok=True)
        self._path = room / "lines"
        self._file = open(self._path, "w+b")  # noqa: SIM115 - closed by `__exit__`
        self._numbers: Any = numpy.empty(0, dtype=numpy.int64)
        self._ends: Any = numpy.zeros(1, dtype=numpy.int64)

    def __enter__(self) -> Texts:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, rows: Iterable[tuple[Any, Any]]) -> None:
        """Rows as `Relation.lines` gives them, whose numbers are above all before."""
        numbers, ends, end = array("q"), array("q"), int(self._ends[-1])
        for batch, lines in rows:
            numbers.extend(batch.column("row").to_pylist())
            for line in lines.to_pylist():
                end += self._file.write(line.encode())
                ends.append(end)
        self._file.flush()
        more = (numpy.frombuffer(some, dtype=numpy.int64) for some in (numbers, ends))
        self._numbers, self._ends = map(numpy.concatenate, zip((self._numbers, self._ends), more, strict=True))

    def __getitem__(self, number: int) -> bytes:
        at = int(self._numbers.searchsorted(number))
        begin, end = int(self._ends[at]), int(self._ends[at + 1])
        return os.pread(self._file.fileno(), end - begin, begin)


def _batches(texts: Texts, pairs: Iterable[tuple[int, int]]) -> Iterator[_Pairs]:
    """Pairs with the lines of their rows, each once in a batch: workers do not read the file."""
    batch, size = _Pairs([], {}), 0
    for pair in pairs:
        new = {number: texts[number] for number in pair if number not in batch.lines}
        if batch.pairs and (len(batch.pairs) == _PAIRS or size + sum(map(len, new.values())) > _BYTES):
            yield batch
            batch, size = _Pairs([], {}), 0
            new = {number: texts[number] for number in pair}
        batch.pairs.append(pair)
        batch.lines.update(new)
        size += sum(map(len, new.values()))
    if batch.pairs:
        yield batch


class NearStep(Global):
    """What removal and grouping have in common."""

    _by_answer: bool

    def __init__(self, settings: Settings) -> None:
        self._finder = _Finder(settings, self._by_answer)

    @property
    def work(self) -> Sequence[Callable[..., Any]]:
        """As `Global.work`."""
        return (self._finder.likenesses,)

    @property
    def sketching(self) -> Sketching | None:
        """As `Global.sketching`."""
        return self._finder


class NearDuplicatesStep(NearStep):
    """Keeps the first row of each cluster."""

    _by_answer = True

    def run(self, rows: Relation, room: Path, workers: Workers) -> None:
        """As `Global.run`."""
        with Texts(room) as texts:
            clusters = self._finder.clusters(rows, texts, workers)
            rows.remove_rows(
                (row, *reason(f"row {first}", likeness))
                for (first, row), likeness in self._finder.compare(texts, clusters.joined(), workers)
            )


def reason(other: str, likeness: Likeness) -> tuple[str, bool]:
    """Why a row is removed, and whether its answer is another one; other: the row that stays."""
    words = f"is like {other} (Jaccard similarity {likeness.similarity:.0%})"
    return (words, False) if likeness.same_answer else (f"{words} with another answer", True)


class NearDuplicateGroups(NearStep):
    """Removes nothing: the rows of a cluster become one group of the splits, with the groups that they are in."""

    _by_answer = False

    def run(self, rows: Relation, room: Path, workers: Workers) -> None:
        """As `Global.run`."""
        with Texts(room) as texts:
            joined = self._finder.clusters(rows, texts, workers).joined()
        rows.execute("CREATE TABLE alike (first BIGINT, row BIGINT)")
        rows.insert("alike", {"first": [first for first, _ in joined], "row": [row for _, row in joined]})
        left, groups = rows.left, _Groups()
        for _, first, mine in rows.all(
            f"SELECT alike.row, a.grp, b.grp FROM alike JOIN {left} a ON a.row = alike.first"
            f" JOIN {left} b ON b.row = alike.row ORDER BY alike.row"
        ):
            groups.join(first, mine)
        rows.regroup(groups.joined(), "goes to the split of a near duplicate")


class _Groups:
    """Disjoint sets of groups; only those that are joined take memory."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def first(self, group: int) -> int:
        while (parent := self._parent.get(group, group)) != group:
            group = parent
        return group

    def join(self, left: int, right: int) -> None:
        """The left one's first stays first: it came first in the source, and appended rows do not change it."""
        left, right = self.first(left), self.first(right)
        if left != right:
            self._parent[right] = left

    def joined(self) -> dict[int, int]:
        """The group that each one has become."""
        return {group: self.first(group) for group in self._parent}
