"""Personal data: redacted in the row, or the row is removed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hone_api.curation import PersonalData
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation.base import Each, Verdict
from hone_trainer.datasets.personal import find, redact
from hone_trainer.datasets.rows import canonical
from hone_trainer.datasets.spool import Row
from hone_trainer.datasets.texts import replaced


def step(plan: MaterializePlan) -> Each | None:
    """The step that curation.personalData asks for."""
    wanted = plan.curation.personal_data
    if wanted == "Keep":
        return None
    kinds = frozenset(map(PersonalData, plan.curation.personal_data_types or PersonalData))
    return Each(lambda row: _judge(row, kinds, refuse=wanted == "Refuse"))


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
