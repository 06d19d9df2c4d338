"""Rows that other Datasets have as well: by the keys of exact duplicates, so that no row of theirs is read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hone_api.plan import DatasetInput, MaterializePlan
from hone_trainer.datasets.curation.base import Global
from hone_trainer.datasets.engine import keys
from hone_trainer.datasets.engine.relation import Relation, parquet
from hone_trainer.workers.parallel import Workers


def step(plan: MaterializePlan) -> SharedRowsStep | None:
    """The step that curation.deduplicateAgainst asks for."""
    return SharedRowsStep(plan.deduplicate_against) if plan.curation.deduplicate_against else None


class SharedRowsStep(Global):
    """Of several rows that are the same, the first one of the first Dataset is named."""

    def __init__(self, others: Sequence[DatasetInput]) -> None:
        self._others = others

    def run(self, rows: Relation, room: Path, workers: Workers) -> None:
        """As `Global.run`."""
        files = keys.files(rows, self._others, room, "exact")
        names = [f"{other.name}/{other.split}".rstrip("/") for other in self._others]
        rows.execute("CREATE TABLE against (file UBIGINT, name VARCHAR)")
        rows.insert("against", {"file": [*range(len(names))], "name": names})
        left = rows.left
        rows.remove(
            f"""SELECT row, format('is row {{}} of {{}}', found % {_FILE_ROWS} + 1, name) AS reason FROM {left} JOIN (
                SELECT exact, min(file_index::BIGINT * {_FILE_ROWS} + file_row_number) AS found FROM {parquet(files)}
                WHERE exact IN (SELECT exact FROM {left}) GROUP BY exact
            ) USING (exact) JOIN against ON file = found // {_FILE_ROWS}"""
        )


_FILE_ROWS = 2**40
"""More than a file has."""
