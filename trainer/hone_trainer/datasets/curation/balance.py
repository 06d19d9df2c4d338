"""Balance: at most so many rows for each value of a column, chosen by the hash of seed and content.

So the choice depends on no other row, and appended rows of other values change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation import personal_data
from hone_trainer.datasets.curation.base import Global
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.workers.parallel import Workers


def step(plan: MaterializePlan) -> BalanceStep | None:
    """The step that curation.balance asks for."""
    settings = plan.curation.balance
    if settings is None:
        return None

    def shown(label: str) -> str:
        return json.dumps(personal_data.redacted(json.loads(label), plan), ensure_ascii=False)

    return BalanceStep(settings.max_rows, shown)


class BalanceStep(Global):
    """The rows of a value with the lowest hashes stay."""

    def __init__(self, most: int, shown: Callable[[str], str] = str) -> None:
        """shown: a value as people may see it."""
        self._most, self._shown = most, shown

    def run(self, rows: Relation, room: Path, workers: Workers) -> None:
        """As `Global.run`."""
        left = rows.left
        over = rows.all(f"SELECT label, count(*) FROM {left} GROUP BY label HAVING count(*) > ?", self._most)
        if not over:
            return
        rows.execute("CREATE TABLE many (label VARCHAR, reason VARCHAR)")
        reasons = [f"is one of {count} with {self._shown(label)[:80]}" for label, count in over]
        rows.insert("many", {"label": [label for label, _ in over], "reason": reasons})
        rows.remove(
            f"""SELECT row, reason FROM (
                SELECT row, many.reason, row_number() OVER (PARTITION BY label ORDER BY balance, row) AS place
                FROM {left} JOIN many USING (label)
            ) WHERE place > ?""",
            self._most,
        )
