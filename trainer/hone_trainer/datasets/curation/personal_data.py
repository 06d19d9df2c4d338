"""Personal data: redacted in the row, or the row is removed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hone_api.curation import PersonalData
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation.base import Each, Verdict
from hone_trainer.datasets.personal import find, redact
from hone_trainer.datasets.rows import canonical
from hone_trainer.datasets.spool import Row
from hone_trainer.datasets.texts import replaced


def step(plan: MaterializePlan) -> Each | None:
    """The step that curation.personalData asks for."""
    kinds = _kinds(plan)
    refuse = plan.curation.personal_data == "Refuse"
    return Each(lambda row: _judge(row, kinds, refuse)) if kinds else None


def redacted(value: Any, plan: MaterializePlan) -> Any:
    """A raw value, such as that of a rejected row, without what curation.personalData leaves out."""
    kinds = _kinds(plan)
    return _redacted(value, kinds) if kinds else value


def _redacted(value: Any, kinds: frozenset[PersonalData]) -> Any:
    if isinstance(value, str):
        return redact(value, find(value, kinds))
    if isinstance(value, dict):
        return {key: _redacted(inner, kinds) for key, inner in value.items()}
    return [_redacted(inner, kinds) for inner in value] if isinstance(value, list) else value


def _kinds(plan: MaterializePlan) -> frozenset[PersonalData]:
    if plan.curation.personal_data == "Keep":
        return frozenset()
    return frozenset(map(PersonalData, plan.curation.personal_data_types or PersonalData))


def _judge(row: Row, kinds: frozenset[PersonalData], refuse: bool) -> Verdict:
    counts: Counter[PersonalData] = Counter()

    def without(text: str) -> str:
        found = find(text, kinds)
        counts.update(one.kind for one in found)
        return redact(text, found) if found else text

    record = replaced(row.record, without)
    if not counts:
        return Verdict(row)
    told = "holds " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    # A removed row is kept for people to look at: without the data, too.
    clean = replace(row, line=canonical(record))
    return Verdict(clean, removed=told) if refuse else Verdict(clean, changed=told)
