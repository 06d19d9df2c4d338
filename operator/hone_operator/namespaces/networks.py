"""The Service and NetworkPolicy by which the ranks of several nodes find each other: kept during an attempt, then
deleted."""

from collections.abc import Mapping, Sequence
from typing import Any

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.existence import Existence
from hone_operator.desired.core import names
from hone_operator.objects import cache as caches
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.run.run_attempts import is_open

KINDS = ("NetworkPolicy", "Service")
BELIEVED_SECONDS = 300.0
"""Seconds that they are believed to exist once ranks train: thousands of runs would cost hundreds of reads a second."""
REMEMBERED = 16_384


def existence_cache(cluster: Cluster) -> Existence:
    """The cache for `is_lost`."""
    return Existence(cluster, BELIEVED_SECONDS, REMEMBERED)


async def is_lost(existence: Existence, jobs: Sequence[ObservedJob], report: Latest | None) -> bool:
    """Whether ranks on nodes cannot find each other, or anybody can reach them.

    Args:
        existence: from `known`, kept across calls.
        jobs: attempts of a run.
        report: the run's newest. Until it contains a step, ranks may be waiting for each other.
    """
    for job in jobs:
        if job.nodes > 1 and not job.finished and job.scheduled:
            if report is None or report.attempt != job.label(names.ATTEMPT) or not report.trained:
                return len(await _read_existing(existence.cluster, job)) < len(KINDS)
            namespace = job.body["metadata"]["namespace"]
            return not all([await existence.of(kind, namespace, job.name) for kind in KINDS])
    return False


def forget(existence: Existence, namespace: str, name: str) -> None:
    """Ask for both again: one of them seems to be gone."""
    for kind in KINDS:
        existence.forget(kind, namespace, name)


async def find_left_behind(
    cluster: Cluster, body: Mapping[str, Any], jobs: Sequence[ObservedJob]
) -> list[Mapping[str, Any]]:
    """Service and NetworkPolicy of attempts that ended unnoticed, if this FineTuneJob owns them."""
    ended = [j for j in jobs if j.finished and j.nodes > 1 and is_open(body, j)]
    existing = [one for job in ended for one in await _read_existing(cluster, job)]
    return [one for one in existing if caches.owner_of(one) == caches.as_owner(body)]


async def _read_existing(cluster: Cluster, job: ObservedJob) -> list[Mapping[str, Any]]:
    namespace = job.body["metadata"]["namespace"]
    objects = [(kind, await cluster.get(kind, namespace, job.name)) for kind in KINDS]
    return [{**one, "kind": kind} for kind, one in objects if one is not None]
