"""Which rows and base the jobs and versions of a Model were made of, and whether training on them succeeded. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hone_api.words.states import ConditionType
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.retrain import retrain_base

Body = Mapping[str, Any]


class Evidence(NamedTuple):
    """What a job or a version of this name was made of."""

    rows: Mapping[str, str]
    """Digest of each Dataset."""
    bases: Collection[str | None]
    """Names of what it started from."""
    failed: str | None
    """Name of the FineTuneJob, if it failed."""
    succeeded: bool
    """Whether there is a model."""


def trainings(jobs: Sequence[Body], versions: Sequence[Body]) -> Iterator[Evidence]:
    """Of the jobs and the versions of a model, whose versions outlive their jobs."""
    for job in jobs:
        failed = str(job["metadata"]["name"]) if is_true(job, ConditionType.FAILED) else None
        rows, base = dataset_digests(job), retrain_base.base_of_job(job)
        yield Evidence(rows, [base], failed, is_true(job, ConditionType.SUCCEEDED))
    for version in versions:
        lineage = version["spec"].get("lineage") or {}
        datasets, start = lineage.get("datasets") or (), lineage.get("baseModel") or {}
        rows = {entry["name"]: entry["digest"] for entry in datasets if entry.get("name") and entry.get("digest")}
        yield Evidence(rows, [start.get("modelVersion") or start.get("commit")], None, succeeded=True)


def dataset_digests(job: Body) -> Mapping[str, str]:
    """Digest of each Dataset that the job itself trained on, once it is known."""
    digests = ((job.get("status") or {}).get("resolved") or {}).get("datasetDigests") or {}
    return digests if isinstance(digests, Mapping) else {}
