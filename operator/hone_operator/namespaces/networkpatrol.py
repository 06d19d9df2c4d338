"""Notices in seconds that the Service or NetworkPolicy of a running attempt is gone; no watch reports it.

Only attempts of several nodes whose pods have nodes are looked at, by name: that needs no right to list or watch these
kinds and no connection of its own, and objects that a tenant adds cost nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import ClusterError
from hone_operator.desired.core import names
from hone_operator.namespaces.networks import KINDS
from hone_operator.objects import cache as caches
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key
from hone_operator.queueing.workqueue import FairQueue
from hone_operator.reconcile.core.pod_state import has_node
from hone_operator.reconcile.core.pods import ObservedJob

log = logging.getLogger(__name__)
SECONDS = 5.0
"""Pause between rounds."""
MOST = 50
"""Attempts a round: 20 reads a second, however many attempts run. With 200 of them each is looked at every 20 s."""


class NetworkedJob(NamedTuple):
    """A Job whose ranks find each other by objects of its name."""

    namespace: str
    name: str
    job: Key
    """The FineTuneJob."""


@dataclass
class NetworkPatrol:
    """Looks at the attempts in turns: a namespace with a great many of them delays only its own."""

    cluster: Cluster
    cache: Cache
    lost: Callable[[NetworkedJob], None]
    """Called with each attempt that lacks one of the two. The cache may be a moment behind: check before acting."""
    is_served: Callable[[str], bool] = lambda namespace: True

    def __post_init__(self) -> None:
        self._turns: FairQueue[NetworkedJob] = FairQueue(lambda attempt: attempt.namespace)

    async def run(self) -> None:
        """Rounds without end; a round that fails is logged."""
        while True:
            await asyncio.sleep(SECONDS)
            try:
                await self.look_around()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                log.info("the Services and NetworkPolicies of attempts cannot be read now: %s", error)

    async def look_around(self) -> None:
        """One round: the attempts whose turn it is."""
        active = set(self._active())
        for attempt in active:
            self._turns.add(attempt, 0.0)
        looked_at = 0
        while looked_at < MOST and (due := self._turns.pop(lambda namespace: False)):
            if due[0] in active:
                looked_at += 1
                await self._look_at(due[0])

    def _active(self) -> list[NetworkedJob]:
        running = []
        for job in self.cache.items("Job"):
            if (job["spec"].get("completions") or 1) < 2:
                continue
            if (job["metadata"].get("labels") or {}).get(names.COMPONENT) != "training":
                continue
            owner, pods = caches.owner_of(job), self.cache.children(job, "Pod")
            # Thousands of Jobs may wait for nodes: their pods are not read in full.
            if owner is None or owner.kind != "FineTuneJob" or not any(map(has_node, pods)):
                continue
            seen = ObservedJob(job, pods)
            if seen.finished or not seen.scheduled:
                continue
            if not caches.controls(self.cache.get(owner.kind, owner.namespace, owner.name), job):
                continue
            if self.is_served(owner.namespace):
                running.append(NetworkedJob(owner.namespace, seen.name, Key(owner.kind, owner.namespace, owner.name)))
        return running

    async def _look_at(self, attempt: NetworkedJob) -> None:
        try:
            for kind in KINDS:
                if not await self.cluster.exists(kind, attempt.namespace, attempt.name):
                    log.debug("%s: the %s of attempt %s is gone", attempt.job, kind, attempt.name)
                    self.lost(attempt)
                    return
        except ClusterError as error:  # of this namespace, e.g. it is being deleted; the others are looked at
            log.debug("%s: the network of attempt %s cannot be read: %s", attempt.job, attempt.name, error)
