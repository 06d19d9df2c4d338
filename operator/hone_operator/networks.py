"""What the ranks of several nodes find each other by: there while they run, gone with the end of their attempt."""

from collections.abc import Mapping, Sequence
from typing import Any

from hone_operator import cache as caches
from hone_operator.cluster import Cluster
from hone_operator.reconcile.attempts import is_open
from hone_operator.reconcile.pods import ObservedJob, scheduled

KINDS = ("NetworkPolicy", "Service")


async def is_lost(cluster: Cluster, jobs: Sequence[ObservedJob]) -> bool:
    """Whether ranks that have nodes look for each other in vain, or can be reached by anybody."""
    for job in jobs:
        if job.nodes > 1 and not job.finished and scheduled(job.pods):
            return len(await _found(cluster, job)) < len(KINDS)
    return False


async def left(cluster: Cluster, body: Mapping[str, Any], jobs: Sequence[ObservedJob]) -> list[Mapping[str, Any]]:
    """What is left of the attempts whose end is news, and is this FineTuneJob's."""
    ended = [j for j in jobs if j.finished and j.nodes > 1 and is_open(body, j)]
    found = [one for job in ended for one in await _found(cluster, job)]
    return [one for one in found if caches.owner_of(one) == caches.as_owner(body)]


async def _found(cluster: Cluster, job: ObservedJob) -> list[Mapping[str, Any]]:
    namespace = job.body["metadata"]["namespace"]
    found = [(kind, await cluster.get(kind, namespace, job.name)) for kind in KINDS]
    return [{**one, "kind": kind} for kind, one in found if one is not None]
