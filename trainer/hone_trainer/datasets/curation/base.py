"""What a step of the curation is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from hone_trainer.datasets.spool import Row


class Verdict(NamedTuple):
    """A row, and why it is removed or what was changed in it; neither: it passes as it came.

    No reason quotes personal data: it is shown in a status.
    """

    row: Row
    removed: str | None = None
    changed: str | None = None
    other_answer: bool = False
    """Removed although its answer differs from that of the row that stays."""


class Step(Protocol):
    """One pass over the rows. The same rows in the same order give the same verdicts."""

    def run(self, rows: Iterator[Row], room: Path) -> Iterator[Verdict]:
        """A verdict on each row, in their order; room is a folder of the step's own for what it keeps on disk."""
        ...


class Each:
    """A step that judges each row by itself."""

    def __init__(self, judge: Callable[[Row], Verdict]) -> None:
        self._judge = judge

    def run(self, rows: Iterator[Row], room: Path) -> Iterator[Verdict]:
        """As `Step.run`."""
        return map(self._judge, rows)
