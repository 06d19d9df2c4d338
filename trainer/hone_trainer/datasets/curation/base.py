"""What a step of the curation is: it judges each row by itself, in whatever process, or all rows as a relation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.datasets.texts.texts import ValidRow
from hone_trainer.workers.parallel import Workers


class CuratedRow(NamedTuple):
    """A row, and why it is removed or what was changed in it; neither: it passes as it came.

    No reason quotes personal data: it is shown in a status.
    """

    row: ValidRow
    removed: str | None = None
    changed: str | None = None


class Each:
    """A step that judges each row by itself: whoever checks the row does it.

    Args:
        judge: of one row; judge_all: of several.
    """

    def __init__(
        self,
        judge: Callable[[ValidRow], CuratedRow] | None = None,
        judge_all: Callable[[Sequence[ValidRow]], Iterable[CuratedRow]] | None = None,
    ) -> None:
        self._judge, self._judge_all = judge, judge_all

    def judged(self, rows: Sequence[ValidRow]) -> Iterable[CuratedRow]:
        """A verdict on each."""
        if self._judge_all:
            return self._judge_all(rows)
        assert self._judge
        return map(self._judge, rows)


class Sketching(Protocol):
    """Hashes by which rows that are alike are found."""

    @property
    def columns(self) -> int:
        """Hashes of a row."""
        ...

    def sketches(self, rows: Sequence[ValidRow]) -> Any:
        """[columns, rows]"""
        ...


class Global:
    """A step that must know all rows. The same rows give the same verdicts, by any number of workers."""

    @property
    def work(self) -> Sequence[Callable[..., Any]]:
        """What workers do for it."""
        return ()

    @property
    def sketching(self) -> Sketching | None:
        """What it needs of each row."""
        return None

    def run(self, rows: Relation, room: Path, workers: Workers) -> None:
        """Remove or change rows of those that the steps before have left.

        Args:
            room: a folder of the step's own, not made yet.
            workers: they have its `work`.
        """
        raise NotImplementedError


Step = Each | Global
