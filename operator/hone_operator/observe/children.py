"""What all kinds read: child Jobs with their pods, and the objects that a spec refers to."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hone_operator.apiserver.cluster import Cluster
from hone_operator.desired.core.platform import Platform
from hone_operator.objects.cache import Cache
from hone_operator.observe.jobs import JobReader
from hone_operator.reconcile.core.pods import ObservedJob

MOST_COMPARED = 500
"""Pairs of names that are compared for one object: about 50 ms for the longest."""


@dataclass(frozen=True)
class Children:
    """Reads the children of one object at a time."""

    cluster: Cluster
    cache: Cache
    platform: Platform
    now: Callable[[], datetime]

    @property
    def read(self) -> JobReader:
        """Reads the parts of a Job that the cache does not hold."""
        return JobReader(self.cluster, self.now)

    async def jobs(self, body: Mapping[str, Any], undigested: Callable[[ObservedJob], bool]) -> list[ObservedJob]:
        """Child Jobs with pods; for Jobs that ended unnoticed, the pods as the API server has them at present."""
        out = []
        for job in self.cache.children(body, "Job"):
            if job["metadata"].get("deletionTimestamp"):
                continue
            workload = next(iter(self.cache.children(job, "Workload")), None)
            seen = ObservedJob(job, self.cache.children(job, "Pod"), workload=workload)
            if seen.finished:
                # Only a FineTuneJob's status has room for the log, which may quote rows.
                with_log = body["kind"] == "FineTuneJob" and self.platform.privacy.rows_in_status
                seen = await self.read.ended(seen, with_log) if undigested(seen) else seen
            else:
                seen = await self.read.in_progress(seen)
            out.append(seen)
        return out

    def named(
        self, kind: str, body: Mapping[str, Any], names_of: Callable[[Mapping[str, Any]], set[str]]
    ) -> dict[str, Mapping[str, Any]]:
        """The objects of this kind that the spec refers to, by name; those that do not exist are absent."""
        namespace = body["metadata"]["namespace"]
        by_name = {name: self.cache.get(kind, namespace, name) for name in names_of(body["spec"])}
        return {name: other for name, other in by_name.items() if other is not None}

    def similar(
        self, kind: str, body: Mapping[str, Any], names_of: Callable[[Mapping[str, Any]], set[str]]
    ) -> dict[str, str]:
        """The name most like it of an object that exists, for each that the spec refers to and that does not."""
        missing = names_of(body["spec"]) - self.named(kind, body, names_of).keys()
        if not missing:
            return {}
        here = [other["metadata"]["name"] for other in self.cache.items(kind, body["metadata"]["namespace"])]
        if len(missing) * len(here) > MOST_COMPARED:
            return {}
        near = {name: difflib.get_close_matches(name, here, n=1) for name in missing}
        return {name: alike[0] for name, alike in near.items() if alike}
