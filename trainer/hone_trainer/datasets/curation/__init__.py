"""Curation: valid rows in, those worth training on out. One module a step; `steps_of` has them in the order they run.

rows -> step -> step -> ... -> rows; each is a generator over the one before, so that a row passes all steps that need
no other row at once. A step that must know every row first keeps them on disk (`spool`), never in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation import (
    balance,
    contamination,
    diverse,
    exact,
    languages,
    length,
    near,
    personal_data,
    scores,
)
from hone_trainer.datasets.curation.base import Step
from hone_trainer.datasets.curation.ledger import Ledger
from hone_trainer.datasets.spool import ValidRow
from hone_trainer.workers.parallel import Workers

Maker = Callable[[MaterializePlan], Step | None]
BEFORE: dict[str, Maker] = {
    "PersonalData": personal_data.step,
    "Length": length.step,
    "Languages": languages.step,
}
AFTER: dict[str, Maker] = {
    "ExactDuplicates": exact.step,
    "NearDuplicates": near.step,
    "NearDuplicateGroups": near.grouping,
    "Contamination": contamination.step,
    "Balance": balance.step,
    "Diverse": diverse.step,
}
"""Steps by name, None where the plan does not ask for one; before and after curation.scores, which may be several."""


def steps_of(plan: MaterializePlan) -> dict[str, Step]:
    """The steps that the plan asks for, in the order of the fields of `Curation`.

    Raises:
        ConfigError: a step's settings cannot be.
    """

    def make_all(makers: dict[str, Maker]) -> dict[str, Step]:
        steps_by_name = {name: make(plan) for name, make in makers.items()}
        return {name: step for name, step in steps_by_name.items() if step is not None}

    return {**make_all(BEFORE), **scores.steps(plan), **make_all(AFTER)}


def curate(
    rows: Iterator[ValidRow], steps: dict[str, Step], folder: Path, ledger: Ledger, workers: Workers
) -> Iterator[ValidRow]:
    """The rows that every step keeps, in the order of the source; ledger notes what became of the others.

    Args:
        folder: an empty folder for what does not fit in memory; the caller removes it.
        workers: they have the `work` of every step.
    """
    for name, step in steps.items():
        room = folder / name
        room.mkdir(parents=True)
        rows = ledger.kept(name, step.run(rows, room, workers))
    return rows


__all__ = ["Ledger", "Step", "curate", "steps_of"]
