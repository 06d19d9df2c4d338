"""Rows that a teacher gives no answer to: they lie beside its answers, with the reason, and are told of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone_trainer.endpoints.client import MOST_REFUSED_PERCENT, too_many
from hone_trainer.errors import SourceError
from hone_trainer.secrets import scrub

REFUSED = "its prompt is refused by the teacher's server"
_KEY = "leftOut"
_MOST_NAMED = 3
_MOST_WORDS = 120
"""Characters of a server's words in a sentence; the file has all."""


@dataclass(frozen=True)
class LeftOut:
    """Why a row has no answer."""

    reason: str
    """The same for all rows with this cause."""
    words: str = ""
    """What the server said, of a prompt that it refused."""

    def entry(self, row: int) -> dict[str, Any]:
        """As a line of JSON has it.

        Args:
            row: line of the split's file, from 1.
        """
        return {_KEY: row, "reason": self.reason, **({"words": self.words} if self.words else {})}


Rows = Mapping[int, LeftOut]
"""By the line of the split's file, from 1."""


def refused(words: str) -> LeftOut:
    """A prompt that the server refused, in its words."""
    return LeftOut(REFUSED, scrub(" ".join(words.split())))


def parted(entries: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[int, LeftOut]]:
    """The answered rows, and those that were left out, of entries of both kinds."""
    answered, left = [], {}
    for entry in entries:
        if _KEY in entry:
            left[entry[_KEY]] = LeftOut(entry["reason"], entry.get("words", ""))
        else:
            answered.append(entry)
    return answered, left


def file_of(answers: Path) -> Path:
    """The file of what was left out of the file of answers."""
    return answers.with_suffix(".left-out.jsonl")


def read(answers: Path) -> dict[int, LeftOut]:
    """What was left out of the file of answers."""
    file = file_of(answers)
    return parted(json.loads(line) for line in file.read_text().splitlines())[1] if file.is_file() else {}


def summary(left: Rows) -> str:
    """Counted by reason, to go on with a sentence; empty where nothing was left out."""
    counts = Counter(row.reason for row in left.values())
    return "".join(f"; {count} left out: {reason}" for reason, count in counts.most_common())


def warnings(split: str, rows: int, left: Rows) -> list[str]:
    """What to tell of prompts that the server refused, of a split with so many rows."""
    named = _refused(left)
    if not named:
        return []
    return [f"{split}: {len(named)} of {rows} prompts are left out, since the teacher's server refuses {_shown(named)}"]


def _refused(left: Rows) -> list[tuple[int, str]]:
    return [(row, found.words) for row, found in left.items() if found.reason == REFUSED]


def _shown(named: list[tuple[int, str]]) -> str:
    """The first rows with the server's words."""
    first = [f"row {row} ({_cut(words)})" for row, words in named[:_MOST_NAMED]]
    more = len(named) - len(first)
    return ", ".join(first) + (f", and {more} more" if more else "")


def _cut(words: str) -> str:
    return words if len(words) <= _MOST_WORDS else f"{words[: _MOST_WORDS - 1]}…"


@dataclass
class Refusals:
    """The prompts of a run that its teacher's server refused.

    Args:
        prompts: how many there are, of all splits.
    """

    prompts: int
    _asked: int = 0
    _found: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, split: str, rows: int, left: Rows) -> None:
        """Count what was left out of so many rows of a split.

        Raises:
            SourceError: EndpointRefused, where more than MOST_REFUSED_PERCENT are refused.
        """
        self._asked += rows
        self._found.setdefault(split, []).extend(_refused(left))
        count = sum(map(len, self._found.values()))
        if not too_many(count, self._asked, self.prompts):
            return
        first = "; ".join(f"{split} {_shown(named)}" for split, named in self._found.items() if named)
        raise SourceError(
            "EndpointRefused",
            f"the teacher's server refuses {count} of {self._asked} prompts so far, and more than "
            f"{MOST_REFUSED_PERCENT}% end the run: {first}. Remove or shorten such rows, or let the server take them: "
            "its context must hold a prompt and distillation.maxCompletionLength",
        )
