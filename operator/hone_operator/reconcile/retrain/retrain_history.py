"""Which finished jobs of a Model are deleted by the history limits of spec.retrain. Pure.

A job that is deleted must change no later decision: the budget counts the jobs that exist, and the job on the present
rows says that they were trained on, or that training on them failed.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from hone_api.blocks.retrain import Retrain
from hone_api.estimate.gpu_time import seconds_held
from hone_api.words.states import ConditionType
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.retrain.retrain_budget import gpu_seconds

Body = dict[str, Any]


class Surplus(NamedTuple):
    """What is beyond the limits."""

    delete: list[Any]
    """FineTuneJobs, oldest first."""
    counted: list[Any]
    """FineTuneJobs that stay, because a budget counts their GPU hours: that of the month until it ends, or
    spec.budget."""


def repeated_job(model: Any) -> str | None:
    """Name of the FineTuneJob that a Model repeats."""
    name: str | None = (model["spec"].get("retrain") or {}).get("fineTuneJob")
    return name


def parents(jobs: Iterable[Any], models: Iterable[Any]) -> frozenset[str]:
    """Names of FineTuneJobs from whose models unfinished ones start, or ones that a Model repeats."""
    templates = {repeated_job(model) for model in models}
    followed = (j for j in jobs if j["metadata"]["name"] in templates or not is_true(j, ConditionType.FINISHED))
    return frozenset(filter(None, ((job["spec"].get("model") or {}).get("fineTuneJob") for job in followed)))


def surplus(retrain: Retrain, own: Sequence[Any], needed: Collection[str], now: datetime) -> Surplus:
    """Finished jobs beyond the newest ones that the limits keep.

    Args:
        own: FineTuneJobs that this Model created.
        needed: names of those that stay whatever the limits say.
    """
    old = [job for job in _beyond(retrain, own, needed) if _may_go(job, needed)]
    monthly = retrain.gpu_hours_per_month is not None
    counted = [
        job
        for job in old
        if (monthly and gpu_seconds(job, now) > 0)
        or ((job.get("spec") or {}).get("budget") and seconds_held(job, now) > 0)
    ]
    return Surplus([job for job in old if job not in counted], counted)


def _beyond(retrain: Retrain, own: Sequence[Any], needed: Collection[str]) -> Iterator[Any]:
    limits = {
        ConditionType.SUCCEEDED: retrain.successful_jobs_history_limit,
        ConditionType.FAILED: retrain.failed_jobs_history_limit,
    }
    for ending, limit in limits.items():
        ended = [job for job in own if is_true(job, ConditionType.FINISHED) and is_true(job, ending)]
        if limit is not None:
            yield from sorted(ended, key=lambda job: _age(job, needed))[: max(0, len(ended) - limit)]


def _age(job: Any, needed: Collection[str]) -> tuple[str, bool, str]:
    """Of two jobs that were created in one second, the one that is needed counts as the newer."""
    name = job["metadata"]["name"]
    return job["metadata"].get("creationTimestamp") or "", name in needed, name


def _may_go(job: Any, needed: Collection[str]) -> bool:
    return job["metadata"]["name"] not in needed and not job["metadata"].get("deletionTimestamp")
