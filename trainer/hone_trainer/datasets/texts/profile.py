"""What the accepted rows look like: turns, roles, answers, tools."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hone_trainer.datasets.texts.pitfalls import Pitfalls

_COMMON = 10
EXAMPLES, EXAMPLE_CHARACTERS = 3, 1500


@dataclass
class Answers:
    """Short last answers, and how many rows have each."""

    rows: int = 0
    """Of all of them."""
    kinds: int = 0
    """Different ones."""
    common: list[tuple[str, int]] = field(default_factory=list)
    """The most common ones first."""
    rarest: int = 0
    """Rows of the rarest one."""


@dataclass
class Profile:
    """Counts over accepted rows."""

    turns: Counter[int] = field(default_factory=Counter)
    """Rows by their number of turns; conversations alone."""
    roles: Counter[str] = field(default_factory=Counter)
    """Turns by role."""
    answers: Answers = field(default_factory=Answers)
    long_answers: int = 0
    with_system: int = 0
    with_tools: int = 0
    with_names: int = 0
    same_role_twice: int = 0
    """Rows in which a role other than the tool's speaks twice in a row."""
    untrained_turns: int = 0
    """Turns of the assistant with weight 0."""
    pitfalls: Pitfalls = field(default_factory=Pitfalls)
    examples: list[str] = field(default_factory=list)
    """The first rows as JSON."""

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
                {"answer": text, "rows": rows} for text, rows in self.answers.common[:_COMMON] if rows > 1
            ],
            "examples": self.examples,
        }
