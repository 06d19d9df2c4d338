"""Exact duplicates: rows of one label, with texts that differ only in case, white space or Unicode form. The first
stays."""

from __future__ import annotations

from pathlib import Path

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation.base import Global
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.workers.parallel import Workers


def step(plan: MaterializePlan) -> ExactDuplicatesStep | None:
    """The step for curation.deduplicate; removal of near duplicates also needs it."""
    return None if plan.curation.deduplicate == "None" else ExactDuplicatesStep()


class ExactDuplicatesStep(Global):
    """Rows are compared by 64 bits of a hash, which differ in practice."""

    def run(self, rows: Relation, room: Path, workers: Workers) -> None:
        """As `Global.run`."""
        left = rows.left
        rows.remove(
            f"""SELECT row, 'repeats row ' || first AS reason FROM {left} JOIN (
                SELECT exact, min(row) AS first FROM {left} GROUP BY exact HAVING count(*) > 1
            ) USING (exact) WHERE row <> first"""
        )
