"""What the newest attempt of a run was given, as its Job and the status say; both may be of somebody else's making."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from hone_api.finetunejob import FineTuneJobSpec
from hone_api.finetunejob_status import Resolved
from hone_api.modelversion import Ancestor
from hone_api.reading import read_known
from hone_operator.desired import names
from hone_operator.reconcile import inputs
from hone_operator.reconcile.pods import ObservedJob


def resolved(spec: FineTuneJobSpec, jobs: Sequence[ObservedJob], status: Mapping[str, Any]) -> Resolved | None:
    """What the run was resolved to; None where no record can be used, and what is Ready now must be taken.

    Args:
        jobs: of the run's attempts.
        status: of the FineTuneJob, as it is.
    """
    for source in (_recorded(jobs, names.RESOLVED), status.get("resolved")):
        if isinstance(source, dict) and source.get("datasetDigests"):
            with suppress(ValidationError):
                found = read_known(Resolved, source)[0]
                if inputs.are_pinned(spec, found):
                    return found
    return None


def ancestors(jobs: Sequence[ObservedJob]) -> list[Ancestor]:
    """The chain that the base came from; empty: none, or nobody can read it."""
    recorded = _recorded(jobs, names.ANCESTORS)
    if isinstance(recorded, list):
        with suppress(ValidationError):
            return [read_known(Ancestor, a)[0] for a in recorded]
    return []


def _recorded(jobs: Sequence[ObservedJob], annotation: str) -> Any:
    """From the newest training Job: it cannot lag behind what the pods were given. None: nobody can read it."""
    if not jobs:
        return None
    newest = max(jobs, key=lambda j: j.label(names.ATTEMPT))
    text = newest.body["metadata"].get("annotations", {}).get(annotation)
    with suppress(ValueError, RecursionError):
        return json.loads(text) if text else None
    return None
