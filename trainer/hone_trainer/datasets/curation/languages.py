"""Languages: removes rows in other languages than the required ones. A row of unknown language is kept."""

from __future__ import annotations

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation.base import CuratedRow, Each
from hone_trainer.datasets.texts.language import UNKNOWN, language_of
from hone_trainer.datasets.texts.texts import ValidRow


def step(plan: MaterializePlan) -> Each | None:
    """The step that curation.languages asks for."""
    allowed = frozenset(plan.curation.languages or ())
    return Each(lambda row: _judge(row, allowed)) if allowed else None


def _judge(row: ValidRow, allowed: frozenset[str]) -> CuratedRow:
    language = language_of(row.text)
    if language in allowed or language == UNKNOWN:
        return CuratedRow(row)
    return CuratedRow(row, removed=f"is in language {language}")
