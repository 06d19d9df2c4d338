"""Inputs of the newest attempt of a run, from its Job and the status; somebody else may have written either."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from hone_api.base.reading import read_known
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.modelversion import Ancestor
from hone_api.kinds.resolved import Resolved
from hone_operator.desired.core import names
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.staging import inputs


def resolved_inputs(spec: FineTuneJobSpec, jobs: Sequence[ObservedJob], status: Mapping[str, Any]) -> Resolved | None:
    """The resolved inputs of the run; None if no record is usable, so that the objects that are Ready now are used.

    Args:
        jobs: the run's attempts.
        status: the FineTuneJob's current status.
    """
    for source in (_recorded(jobs, names.RESOLVED), status.get("resolved")):
        if isinstance(source, dict) and source.get("datasetDigests"):
            with suppress(ValidationError):
                record = read_known(Resolved, source)[0]
                if inputs.are_pinned(spec, record):
                    return record
    return None


def ancestors(jobs: Sequence[ObservedJob]) -> list[Ancestor]:
    """The chain that the base came from; empty if there is none, or it cannot be parsed."""
    recorded = _recorded(jobs, names.ANCESTORS)
    if isinstance(recorded, list):
        with suppress(ValidationError):
            return [read_known(Ancestor, a)[0] for a in recorded]
    return []


def _recorded(jobs: Sequence[ObservedJob], annotation: str) -> Any:
    """The annotation of the newest training Job, which cannot lag behind its pods. None: it cannot be parsed."""
    if not jobs:
        return None
    newest = max(jobs, key=lambda j: j.label(names.ATTEMPT))
    text = newest.body["metadata"].get("annotations", {}).get(annotation)
    with suppress(ValueError, RecursionError):
        return json.loads(text) if text else None
    return None
