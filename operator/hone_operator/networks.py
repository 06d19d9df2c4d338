"""What the ranks of several nodes find each other by: there while they run, gone with the end of their attempt."""

from collections.abc import Mapping, Sequence
from typing import Any

from hone_operator import cache as caches
from hone_operator.cluster import Cluster
from hone_operator.desired import names
from hone_operator.existence import Existence
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.attempts import is_open
from hone_operator.reconcile.pods import ObservedJob, scheduled

KINDS = ("NetworkPolicy", "Service")
BELIEVED_SECONDS = 300.0
"""How long they are believed to be there once ranks train: else thousands of runs cost hundreds of reads a second."""
REMEMBERED = 16_384


def known(cluster: Cluster) -> Existence:
    """What `is_lost` remembers."""
    return Existence(cluster, BELIEVED_SECONDS, REMEMBERED)


async def is_lost(existence: Existence, jobs: Sequence[ObservedJob], report: Latest | None) -> bool:
    """Whether ranks that have nodes look for each other in vain, or can be reached by anybody.

    Args:
        existence: of `known`, kept from one call to the next.
        jobs: of a run's attempts.
        report: the newest of the run. Until it tells of a step, ranks may be waiting, and are not kept waiting.
    """
    for job in jobs:
        if job.nodes > 1 and not job.finished and scheduled(job.pods):
            if report is None or report.attempt != job.label(names.ATTEMPT) or not report.trained:
                return len(await _found(existence.cluster, job)) < len(KINDS)
            namespace = job.body["metadata"]["namespace"]
            return not all([await existence.of(kind, namespace, job.name) for kind in KINDS])
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
