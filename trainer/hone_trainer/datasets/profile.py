"""What the accepted rows look like: turns, roles, answers, tools, languages. Memory hardly grows with the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hone_trainer.datasets.language import LanguageSample
from hone_trainer.datasets.pitfalls import Pitfalls, add_numbers
from hone_trainer.datasets.rows import Record, canonical
from hone_trainer.datasets.texts import joined

_EXAMPLES, _EXAMPLE_CHARACTERS = 3, 1500
_MAX_ANSWERS = 50_000
"""Different answers that are counted; what comes after them counts only when it is one of them."""
_ANSWER_CHARACTERS = 200
"""Longer answers are not compared: they hardly repeat, but as whole rows."""


@dataclass
class Profile:
    """Counts over accepted rows."""

    turns: Counter[int] = field(default_factory=Counter)
    """Rows by their number of turns; conversations alone."""
    roles: Counter[str] = field(default_factory=Counter)
    """Turns by role."""
    answers: Counter[str] = field(default_factory=Counter)
    """Rows by their last answer; short ones alone."""
    long_answers: int = 0
    with_system: int = 0
    with_tools: int = 0
    with_names: int = 0
    same_role_twice: int = 0
    """Rows in which a role other than the tool's speaks twice in a row."""
    untrained_turns: int = 0
    """Turns of the assistant with weight 0."""
    languages: LanguageSample = field(default_factory=LanguageSample)
    pitfalls: Pitfalls = field(default_factory=Pitfalls)
    examples: list[str] = field(default_factory=list)
    """The first rows as JSON."""

    def see(self, record: Record, value: int, question: int) -> None:
        """Count one row by the hash of its content, and of what it asks."""
        text = joined(record)
        self.languages.see(value, text)
        self.pitfalls.see(record, text, question)
        if len(self.examples) < _EXAMPLES:
            self.examples.append(canonical(record)[:_EXAMPLE_CHARACTERS])
        if (answer := _answer(record)) is not None:
            if len(answer) > _ANSWER_CHARACTERS:
                self.long_answers += 1
            elif len(self.answers) < _MAX_ANSWERS or answer in self.answers:
                self.answers[answer] += 1
        if "messages" in record:
            self._see_turns(record["messages"])
            self.with_tools += "tools" in record or any("tool_calls" in turn for turn in record["messages"])

    def add(self, other: Profile) -> None:
        """Count the rows of another one, which come after those of this one."""
        self.turns.update(other.turns)
        self.roles.update(other.roles)
        for answer, rows in other.answers.items():
            if len(self.answers) < _MAX_ANSWERS or answer in self.answers:
                self.answers[answer] += rows
        self.languages.add(other.languages)
        self.pitfalls.add(other.pitfalls)
        self.examples += other.examples[: _EXAMPLES - len(self.examples)]
        add_numbers(self, other)

    def _see_turns(self, turns: Sequence[dict[str, Any]]) -> None:
        roles = [turn["role"] for turn in turns]
        self.turns[len(turns)] += 1
        self.roles.update(roles)
        self.with_system += "system" in roles
        self.with_names += any("name" in turn for turn in turns if turn["role"] != "tool")
        self.same_role_twice += any(a == b != "tool" for a, b in pairwise(roles))
        self.untrained_turns += sum(turn.get("weight") == 0 for turn in turns)

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "turnsPerRow": {str(turns): rows for turns, rows in sorted(self.turns.items())},
            "turnsByRole": dict(self.roles.most_common()),
            "rowsWithSystemTurn": self.with_system,
            "rowsWithTools": self.with_tools,
            "rowsWithNames": self.with_names,
            "rowsWithOneRoleTwice": self.same_role_twice,
            "untrainedAssistantTurns": self.untrained_turns,
            "commonAnswers": [
                {"answer": text, "rows": rows} for text, rows in self.answers.most_common(10) if rows > 1
            ],
            "examples": self.examples,
        }


def _answer(record: Record) -> str | None:
    if "messages" in record:
        answers = [turn["content"] for turn in record["messages"] if turn["role"] == "assistant"]
        return answers[-1] if answers and answers[-1] else None
    answer = record.get("completion")
    return answer if isinstance(answer, str) else None
