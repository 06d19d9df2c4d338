"""Rows that a teacher does not answer. They are stored next to its answers with the reason, and reported."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer.endpoints.client import MOST_REFUSED_PERCENT, too_many
from hone_trainer.errors import SourceError
from hone_trainer.secrets import scrub

REFUSED = "its prompt is refused by the teacher's server"
_KEY = "leftOut"
_MOST_NAMED = 3
_MOST_WORDS = 120
"""Characters of a server's message in a sentence; the file has the whole message."""


@dataclass(frozen=True)
class LeftOut:
    """Why a row has no answer."""

    reason: str
    """The same text for all rows with this cause."""
    words: str = ""
    """The server's message for a prompt that it refused."""

    def entry(self, row: int) -> dict[str, Any]:
        """The line of JSON for this row.

        Args:
            row: line of the split's file, from 1.
        """
        return {_KEY: row, "reason": self.reason, **({"words": self.words} if self.words else {})}


Rows = Mapping[int, LeftOut]
"""Keyed by the line of the split's file, from 1."""


def refused_prompt(words: str) -> LeftOut:
    """The reason for a prompt that the server refused, with its message."""
    return LeftOut(REFUSED, scrub(" ".join(words.split())))


def separate(entries: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[int, LeftOut]]:
    """Separate answered rows from those left out."""
    answered, left = [], {}
    for entry in entries:
        if _KEY in entry:
            left[entry[_KEY]] = LeftOut(entry["reason"], entry.get("words", ""))
        else:
            answered.append(entry)
    return answered, left


def file_of(answers: Path) -> Path:
    """The file of rows left out, next to the file of answers."""
    return answers.with_suffix(".left-out.jsonl")


def read(answers: Path) -> dict[int, LeftOut]:
    """The rows left out of a file of answers."""
    file = file_of(answers)
    return separate(json.loads(line) for line in file.read_text().splitlines())[1] if file.is_file() else {}


def summary(left: Rows) -> str:
    """Counts by reason, to append to a sentence; empty if nothing was left out."""
    counts = Counter(row.reason for row in left.values())
    return "".join(f"; {count} left out: {reason}" for reason, count in counts.most_common())


def warnings(split: str, rows: int, left: Rows) -> list[str]:
    """Warnings about prompts that the server refused, in a split with `rows` rows."""
    refused_rows = _refused(left)
    if not refused_rows:
        return []
    rest = f"{len(refused_rows)} of {rows} prompts are left out, since the teacher's server refuses"
    return [f"{split}: {rest} {_shown(refused_rows)}"]


def _refused(left: Rows) -> list[tuple[int, str]]:
    return [(row, skip.words) for row, skip in left.items() if skip.reason == REFUSED]


def _shown(rows: list[tuple[int, str]]) -> str:
    """The first rows with the server's messages."""
    first = [f"row {row} ({_cut(words)})" for row, words in rows[:_MOST_NAMED]]
    more = len(rows) - len(first)
    return ", ".join(first) + (f", and {more} more" if more else "")


def _cut(words: str) -> str:
    return words if len(words) <= _MOST_WORDS else f"{words[: _MOST_WORDS - 1]}…"


@dataclass
class RefusedPrompts:
    """Counts prompts that the teacher's server refused in this run.

    Args:
        prompts: total number, of all splits.
    """

    prompts: int
    _asked: int = 0
    _found: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, split: str, rows: int, left: Rows) -> None:
        """Count the rows left out of a split with `rows` rows.

        Raises:
            SourceError: EndpointRefused, if more than MOST_REFUSED_PERCENT are refused.
        """
        self._asked += rows
        self._found.setdefault(split, []).extend(_refused(left))
        count = sum(map(len, self._found.values()))
        if not too_many(count, self._asked, self.prompts):
            return
        first = "; ".join(f"{split} {_shown(refused)}" for split, refused in self._found.items() if refused)
        raise SourceError(
            FailureCode.ENDPOINT_REFUSED,
            f"the teacher's server refuses {count} of {self._asked} prompts so far, and more than "
            f"{MOST_REFUSED_PERCENT}% end the run: {first}. Remove or shorten such rows, or let the server take them: "
            "its context must hold a prompt and distillation.maxCompletionLength",
        )
