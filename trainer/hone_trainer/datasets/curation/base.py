"""What a step of the curation is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hone_trainer.datasets import batches
from hone_trainer.datasets.spool import ValidRow
from hone_trainer.workers.parallel import Workers


class CuratedRow(NamedTuple):
    """A row, and why it is removed or what was changed in it; neither: it passes as it came.

    No reason quotes personal data: it is shown in a status.
    """

    row: ValidRow
    removed: str | None = None
    changed: str | None = None
    other_answer: bool = False
    """Removed although its answer differs from that of the row that stays."""


class Step(Protocol):
    """One pass over the rows. The same rows in the same order give the same verdicts, by any number of workers."""

    @property
    def work(self) -> Sequence[Callable[..., Any]]:
        """What workers do for it."""
        return ()

    def keep(self, folder: Path, identity: str, most: int) -> None:
        """Keep what takes long in a folder, for an attempt that has the same rows.

        Args:
            identity: of the plan and the code.
            most: bytes.
        """
        return

    def run(self, rows: Iterator[ValidRow], room: Path, workers: Workers) -> Iterator[CuratedRow]:
        """A verdict on each row, in their order.

        Args:
            room: a folder of the step's own for what it keeps on disk.
            workers: they have its `work`.
        """
        ...


class Each(Step):
    """A step that judges each row by itself: workers do."""

    def __init__(self, judge: Callable[[ValidRow], CuratedRow]) -> None:
        self._judge = judge

    @property
    def work(self) -> Sequence[Callable[..., Any]]:
        """As `Step.work`."""
        return (self.judged,)

    def judged(self, rows: Sequence[ValidRow]) -> list[tuple[ValidRow | None, str | None, str | None]]:
        """For each row the fields of its verdict; None for a row that stays as it is: the parent has it."""
        verdicts = [(row, self._judge(row)) for row in rows]
        return [(None if new.row is row else new.row, new.removed, new.changed) for row, new in verdicts]

    def run(self, rows: Iterator[ValidRow], room: Path, workers: Workers) -> Iterator[CuratedRow]:
        """As `Step.run`."""
        for batch, judged in workers.map(self.judged, batches.of_rows(rows)):
            for row, (new, removed, changed) in zip(batch, judged, strict=True):
                yield CuratedRow(new or row, removed, changed)
