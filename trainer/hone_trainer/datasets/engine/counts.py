"""What the report says of the rows that are kept, counted of their columns."""

from __future__ import annotations

import json
from collections import Counter
from functools import cached_property
from typing import NamedTuple

from hone_trainer.datasets.engine import features
from hone_trainer.datasets.engine.relation import LAST, Relation, WantedRows
from hone_trainer.datasets.texts import profile
from hone_trainer.datasets.texts.pitfalls import AnswerLengths, Conflict, Pitfalls
from hone_trainer.datasets.texts.profile import Answers, Profile
from hone_trainer.datasets.texts.statistics import LengthHistogram
from hone_trainer.datasets.texts.texts import texts_of
from hone_trainer.workers.parallel import Workers

_ROLES = {letter: role for role, letter in features.ROLE_LETTERS.items()}


class _Flagged(NamedTuple):
    """Rows with the same `flags`, and sums of them."""

    flags: int
    rows: int
    untrained: int
    better: int
    worse: int
    longer: int
    """Whose chosen answer is the longer one."""
    shorter: int


class RowCounts:
    """Of the rows that all steps have left."""

    def __init__(self, rows: Relation) -> None:
        self._rows = rows
        rows.execute(f"CREATE VIEW left_rows AS SELECT * FROM {rows.left_by(LAST)}")

    def lengths(self) -> LengthHistogram:
        """Rows by length."""
        return LengthHistogram(dict(self._rows.all("SELECT length, count(*) FROM left_rows GROUP BY length")))

    def duplicates(self) -> int:
        """Rows that repeat an earlier one exactly."""
        return int(self._rows.one("SELECT count(*) - count(DISTINCT content) FROM left_rows"))

    def texts(self, most: int, characters: int, workers: Workers) -> list[str]:
        """The beginnings of a uniform sample: the rows with the smallest hashes, whatever their order.

        Args:
            workers: they have `beginnings`.
        """
        query = f"SELECT row, content FROM left_rows ORDER BY content, row LIMIT {most}"
        sample = ((wanted, characters) for wanted in self._rows.wanted(query))
        texts = (text for _, some in workers.map(beginnings, sample) for text in some)
        return [text for _, text in sorted(texts, reverse=True)]

    def profile(self) -> Profile:
        """What rows look like."""
        rows, bits = self._rows, self._bits
        seen = Profile(pitfalls=self._pitfalls())
        seen.long_answers, seen.with_names = bits(features.LONG_ANSWER), bits(features.NAMES)
        seen.with_tools, seen.untrained_turns = bits(features.TOOLS), sum(one.untrained for one in self._by_flags)
        self._see_roles(seen)
        seen.answers = self._answers()
        first = f"SELECT row FROM left_rows ORDER BY row LIMIT {profile.EXAMPLES}"
        for _, lines in rows.lines(first):
            seen.examples += [line[: profile.EXAMPLE_CHARACTERS] for line in lines.to_pylist()]
        return seen

    @cached_property
    def _by_flags(self) -> list[_Flagged]:
        query = """SELECT flags, count(*), sum(untrained), sum(better), sum(worse), count(*) FILTER (better > worse),
            count(*) FILTER (better < worse) FROM left_rows GROUP BY flags"""
        return [_Flagged(*map(int, one)) for one in self._rows.all(query)]

    def _bits(self, bit: int) -> int:
        """How many rows have a bit of `flags`."""
        return sum(one.rows for one in self._by_flags if one.flags & bit)

    def _see_roles(self, seen: Profile) -> None:
        """Conversations by the sequence of their roles."""
        pitfalls = seen.pitfalls
        query = "SELECT roles, count(*), min(row) FROM left_rows WHERE roles IS NOT NULL GROUP BY roles ORDER BY 3"
        for roles, count, _ in self._rows.all(query):
            seen.turns[len(roles)] += count
            for letter in roles:
                seen.roles[_ROLES[letter]] += count
            seen.with_system += count * ("s" in roles)
            seen.same_role_twice += count * features.says_twice(roles)
            pitfalls.without_answer_last += count * (not roles.endswith("a"))
            pitfalls.late_system += count * ("s" in roles[1:])

    def _answers(self) -> Answers:
        rows = self._rows
        rows.execute(
            """CREATE TABLE answers AS SELECT answer, count(*) AS count, min(row) AS first FROM left_rows
                WHERE answer IS NOT NULL GROUP BY answer"""
        )
        total, kinds, rarest = rows.all(
            "SELECT coalesce(sum(count), 0), count(*), coalesce(min(count), 0) FROM answers"
        )[0]
        common = rows.all("SELECT answer, count FROM answers ORDER BY count DESC, first LIMIT 10")
        rows.execute("DROP TABLE answers")
        return Answers(int(total), kinds, common, rarest)

    def _pitfalls(self) -> Pitfalls:
        rows, bits = self._rows, self._bits
        faults: Counter[str] = Counter()
        query = "SELECT faults, count(*), min(row) FROM left_rows WHERE faults IS NOT NULL GROUP BY faults ORDER BY 3"
        for listed, count, _ in rows.all(query):
            for fault in json.loads(listed):
                faults[fault] += count
        several = rows.all(
            """SELECT count(*), coalesce(sum(rows), 0) FROM (
                SELECT coalesce(asked, question) AS asked, count(*) AS rows FROM left_rows WHERE answer_hash IS NOT NULL
                GROUP BY 1 HAVING min(answer_hash) <> max(answer_hash))"""
        )[0]
        return Pitfalls(
            late_system=bits(features.LATE_SYSTEM),
            control_tokens=bits(features.CONTROL),
            invisible=bits(features.INVISIBLE),
            nothing=bits(features.NOTHING),
            same_but_form=bits(features.SAME_FORM),
            tools=faults,
            lengths=self._answer_lengths(),
            conflict=Conflict(several[0], int(several[1])),
        )

    def _answer_lengths(self) -> AnswerLengths:
        lengths = AnswerLengths()
        for one in self._by_flags:
            if one.flags & features.PAIR:
                lengths.worse += one.worse
                lengths.longer += one.longer
                lengths.shorter += one.shorter
                lengths.pairs += one.rows
            elif one.flags & features.BAD:
                lengths.worse += one.better
                lengths.worse_rows += one.rows
            if one.flags & (features.PAIR | features.GOOD):
                lengths.better += one.better
            if one.flags & features.GOOD:
                lengths.better_rows += one.rows
        return lengths


def beginnings(task: tuple[WantedRows, int]) -> list[tuple[int, str]]:
    """Of the texts of rows, so many characters, with the hash of each row: what a worker does."""
    wanted, characters = task
    return [
        (content, "\n".join(text for _, text in texts_of(json.loads(line)))[:characters])
        for batch, lines in wanted.lines()
        for content, line in zip(batch.column("content").to_pylist(), lines.to_pylist(), strict=True)
    ]
