"""Whether a Dataset must be materialized again: by the mark of its source, and by everything else its rows depend
on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.sources import sources
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import manifest

_SEPARATOR = " with "


def fetch(plan: MaterializePlan, folder: Path, progress: TaskProgress) -> sources.Fetched:
    """The source's files, as `sources.fetch`.

    Raises:
        SourceError: as `sources.fetch`.
        UnchangedError: plan.known is the version of source and surroundings, and the content is in the store.
    """
    return sources.fetch(plan.model_copy(update={"known": _mark(plan)}), folder, progress)


def version(plan: MaterializePlan, fetched: sources.Fetched) -> str | None:
    """The value for `known` in the next plan; None if the source has no mark."""
    return f"{fetched.mark}{_SEPARATOR}{_surroundings(plan)}" if fetched.mark else None


def _mark(plan: MaterializePlan) -> str | None:
    """The source's part of plan.known, if the rest of it is still so."""
    if not plan.known or not plan.previous:
        return None
    mark, _, surroundings = plan.known.rpartition(_SEPARATOR)
    content = Path(plan.store) / "datasets" / plan.previous.removeprefix("sha256:")
    return mark if surroundings == _surroundings(plan) and manifest.is_complete(content) else None


def _surroundings(plan: MaterializePlan) -> str:
    """What the rows depend on in addition to the source: the spec is the same in all plans of one generation."""
    sets = [[one.name, one.split, one.digest] for one in (*plan.evaluation_sets, *plan.deduplicate_against)]
    models = {name: model.digest for name, model in plan.classifiers.items()}
    return hashlib.sha256(json.dumps([sets, models], sort_keys=True).encode()).hexdigest()[:12]
