"""Curation: valid rows in, those worth training on out. One module a step; `STEPS` has them in the order they run.

rows -> step -> step -> ... -> rows; each is a generator over the one before, so that a row passes all steps that need
no other row at once. A step that must know every row first keeps them on disk (`spool`), never in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation import exact, near
from hone_trainer.datasets.curation.base import Step
from hone_trainer.datasets.curation.ledger import Ledger
from hone_trainer.datasets.spool import Row

STEPS: dict[str, Callable[[MaterializePlan], Step | None]] = {
    "ExactDuplicates": exact.step,
    "NearDuplicates": near.step,
    "NearDuplicateGroups": near.grouping,
}
"""Step by name, None where the plan does not ask for it; in the order of the fields of `Curation`."""


def steps(plan: MaterializePlan) -> dict[str, Step]:
    """The steps that the plan asks for, in their order.

    Raises:
        ConfigError: a step's settings cannot be.
    """
    made = {name: make(plan) for name, make in STEPS.items()}
    return {name: step for name, step in made.items() if step is not None}


def curate(rows: Iterator[Row], steps: dict[str, Step], folder: Path, ledger: Ledger) -> Iterator[Row]:
    """The rows that every step keeps, in the order of the source; ledger notes what became of the others.

    Args:
        folder: an empty folder for what does not fit in memory; the caller removes it.
    """
    for name, step in steps.items():
        room = folder / name
        room.mkdir(parents=True)
        rows = ledger.kept(name, step.run(rows, room))
    return rows


__all__ = ["STEPS", "Ledger", "Step", "curate", "steps"]
