"""Reads a namespace's store: its claim, and the shared Jobs that stage base models and tasks in it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hone_api.words.states import ConditionType
from hone_operator.apiserver.cluster import Cluster
from hone_operator.desired.core import names, shared
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.shared import Shared
from hone_operator.objects import cache as caches
from hone_operator.objects.cache import Cache
from hone_operator.observe.jobs import JobReader
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.core.failures import failed_pods
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.staging.staging import StoreState

BELIEVED_SECONDS = 60.0


@dataclass
class StoreReader:
    """Reads for one FineTuneJob at a time."""

    cluster: Cluster
    cache: Cache
    platform: Platform
    read: JobReader
    _claims: dict[str, tuple[float, Mapping[str, Any]]] = field(default_factory=dict)
    """Claims by namespace, and until when they are believed (monotonic seconds)."""

    async def observe(self, body: Mapping[str, Any]) -> StoreState:
        """The store and the shared Jobs that this FineTuneJob needs, until its first attempt has begun.

        Also later if the status does not say what the attempt began with: then everything is staged again.
        """
        status = body.get("status") or {}
        pinned = (status.get("resolved") or {}).get("datasetDigests")
        begun = bool(status.get("attempts") and pinned) or is_true(body, ConditionType.FINISHED)
        work = [] if begun else shared.wanted(body["spec"], self.platform)
        return await self.stage(body["metadata"]["namespace"], work) if work else StoreState()

    async def stage(self, namespace: str, work: Sequence[Shared]) -> StoreState:
        """The store and the shared Jobs of this work."""
        jobs = [j for each in work for j in self.cache.shared(namespace, each.key) if self._is_staging(j, each)]
        return StoreState(await self._claim(namespace), [await self._staging(job) for job in jobs])

    def _is_staging(self, job: Mapping[str, Any], work: Shared) -> bool:
        """Whether this Job stages that work: a label alone does not prove it."""
        meta, owner = job["metadata"], caches.owner_of(job)
        if owner is None or owner[1:4] != ("v1", "PersistentVolumeClaim", self.platform.store.claim_name):
            return False
        return meta["labels"].get(names.COMPONENT) == work.component and not meta.get("deletionTimestamp")

    async def _staging(self, job: Mapping[str, Any]) -> ObservedJob:
        """The Job with its end. A hundred FineTuneJobs may read it, so only what the cache lacks is read from the API
        server."""
        workload = next(iter(self.cache.children(job, "Workload")), None)
        seen = ObservedJob(job, self.cache.children(job, "Pod"), workload=workload)
        if not seen.finished:
            return await self.read.in_progress(seen)
        return seen if seen.result() or failed_pods(seen) else await self.read.ended(seen, with_log=False)

    def forget(self, namespace: str) -> None:
        """Forget the claim of a namespace that has no object of ours any more."""
        self._claims.pop(namespace, None)

    async def _claim(self, namespace: str) -> Mapping[str, Any] | None:
        """The store's claim with its uid."""
        cached = self._claims.get(namespace)
        if cached and cached[0] > time.monotonic():
            return cached[1]
        stored = await self.cluster.get("PersistentVolumeClaim", namespace, self.platform.store.claim_name)
        if stored is None:
            return None
        claim = {"kind": "PersistentVolumeClaim", "metadata": stored["metadata"]}
        self._claims[namespace] = (time.monotonic() + BELIEVED_SECONDS, claim)
        return claim
