"""Languages: removes rows in other languages than the required ones. A row of unknown language is kept."""

from __future__ import annotations

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation.base import Each, Verdict
from hone_trainer.datasets.language import UNKNOWN, language_of
from hone_trainer.datasets.spool import Row
from hone_trainer.datasets.texts import joined


def step(plan: MaterializePlan) -> Each | None:
    """The step that curation.languages asks for."""
    allowed = frozenset(plan.curation.languages or ())
    return Each(lambda row: _judge(row, allowed)) if allowed else None


def _judge(row: Row, allowed: frozenset[str]) -> Verdict:
    language = language_of(joined(row.record))
    if language in allowed or language == UNKNOWN:
        return Verdict(row)
    return Verdict(row, removed=f"is in language {language}")
