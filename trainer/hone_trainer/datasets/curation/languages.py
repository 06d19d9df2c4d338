"""Languages: rows in others than those wanted. A row whose language cannot be told is kept."""

from __future__ import annotations

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation.base import Each, Verdict
from hone_trainer.datasets.language import UNKNOWN, language_of
from hone_trainer.datasets.spool import Row
from hone_trainer.datasets.texts import joined


def step(plan: MaterializePlan) -> Each | None:
    """The step that curation.languages asks for."""
    wanted = frozenset(plan.curation.languages or ())
    return Each(lambda row: _judge(row, wanted)) if wanted else None


def _judge(row: Row, wanted: frozenset[str]) -> Verdict:
    found = language_of(joined(row.record))
    if found in wanted or found == UNKNOWN:
        return Verdict(row)
    return Verdict(row, removed=f"is in language {found}")
