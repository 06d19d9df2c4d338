"""What the report says of the rows that are kept, counted of their columns."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hone_trainer.datasets.engine import features
from hone_trainer.datasets.engine.relation import LAST, Relation
from hone_trainer.datasets.texts import profile
from hone_trainer.datasets.texts.pitfalls import AnswerLengths, Conflict, Pitfalls
from hone_trainer.datasets.texts.profile import Answers, Profile
from hone_trainer.datasets.texts.statistics import LengthHistogram
from hone_trainer.datasets.texts.texts import texts_of

_ROLES = {letter: role for role, letter in features.ROLE_LETTERS.items()}


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

    def texts(self, most: int, characters: int) -> list[str]:
        """The beginnings of a uniform sample: the rows with the smallest hashes, whatever their order."""
        query = f"SELECT row, content FROM left_rows ORDER BY content, row LIMIT {most}"
        texts: list[tuple[int, str]] = []
        for batch, lines in self._rows.lines(query):
            for content, line in zip(batch.column("content").to_pylist(), lines.to_pylist(), strict=True):
                text = "\n".join(text for _, text in texts_of(json.loads(line)))
                texts.append((content, text[:characters]))
        return [text for _, text in sorted(texts, reverse=True)]

    def profile(self) -> Profile:
        """What rows look like."""
        rows = self._rows
        seen = Profile(pitfalls=self._pitfalls())
        bits = self._bits()
        seen.long_answers, seen.with_names = bits(features.LONG_ANSWER), bits(features.NAMES)
        seen.with_tools, seen.untrained_turns = (
            bits(features.TOOLS),
            int(rows.one("SELECT coalesce(sum(untrained), 0) FROM left_rows")),
        )
        self._see_roles(seen)
        seen.answers = self._answers()
        first = f"SELECT row FROM left_rows ORDER BY row LIMIT {profile.EXAMPLES}"
        for _, lines in rows.lines(first):
            seen.examples += [line[: profile.EXAMPLE_CHARACTERS] for line in lines.to_pylist()]
        return seen

    def _bits(self) -> Any:
        """Gives how many rows have a bit of `flags`."""
        counts = self._rows.all("SELECT flags, count(*) FROM left_rows GROUP BY flags")
        return lambda bit: sum(rows for flags, rows in counts if flags & bit)

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
        rows, bits = self._rows, self._bits()
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
        pair, good, bad = (f"(flags & {bit}) <> 0" for bit in (features.PAIR, features.GOOD, features.BAD))
        sums = self._rows.all(
            f"""SELECT sum(CASE WHEN {pair} OR {good} THEN better END),
                sum(CASE WHEN {pair} THEN worse WHEN {bad} THEN better END),
                count(*) FILTER ({good}), count(*) FILTER ({bad}), count(*) FILTER ({pair} AND better > worse),
                count(*) FILTER ({pair} AND better < worse), count(*) FILTER ({pair}) FROM left_rows"""
        )[0]
        return AnswerLengths(*(int(number or 0) for number in sums))
