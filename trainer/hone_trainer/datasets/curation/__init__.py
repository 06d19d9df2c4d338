"""Curation: valid rows in, those worth training on out. One module a step; `steps_of` has them in the order they run.

Steps that judge each row by itself work where the row is checked; the others on the relation of all rows. A row is
removed by the first step that would remove it, whichever of them saw it first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    near_shared,
    personal_data,
    scores,
    shared,
)
from hone_trainer.datasets.curation.base import Each, Global, Step
from hone_trainer.datasets.engine.relation import Relation
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
    "SharedRows": shared.step,
    "NearSharedRows": near_shared.step,
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


def judge(rows: Relation, steps: Mapping[str, Step], room: Path, workers: Workers) -> None:
    """Let each step remove and change rows, in order; what steps of one row say of it, the parts have.

    Args:
        room: a folder for what steps keep on disk meanwhile.
        workers: they have the `work` of every step.
    """
    if rows.parts and any(isinstance(step, Each) for step in steps.values()):
        rows.execute("INSERT INTO verdicts SELECT row, step, reason, false FROM valid WHERE step IS NOT NULL")
        rows.execute("INSERT INTO changes SELECT row, changed_by, changed FROM valid WHERE changed IS NOT NULL")
    for place, (name, step) in enumerate(steps.items()):
        rows.step = place
        if isinstance(step, Global):
            step.run(rows, room / name, workers)


__all__ = ["Each", "Global", "Step", "judge", "steps_of"]
