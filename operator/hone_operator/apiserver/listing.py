"""Lists of all kinds: the initial state, and what a watch missed."""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import MissingKindError, NotFoundError, UnreadableObjectError
from hone_operator.desired.core.names import COMPONENT, KUEUE_API
from hone_operator.objects.cache import Cache, version

log = logging.getLogger(__name__)
SELECTORS = {
    "FineTuneJob": "",
    "Dataset": "",
    "ModelVersion": "",
    "Model": "",
    "Job": COMPONENT,
    "Pod": COMPONENT,
}
"""Every kind that we always watch, owners before what they own, and its label selector."""
LATER = frozenset({"Model"})
"""Kinds that definitions of an older release lack: the operator works without them."""
JOB_UID = "kueue.x-k8s.io/job-uid"
"""Label of a Workload that belongs to one object, e.g. a Job."""
NO_KUEUE = (
    f"kueue.enabled of the chart is true, and the API server has no Workloads of {KUEUE_API}: install Kueue 0.15 or "
    "later, or set it to false"
)
NO_DEFINITION = (
    "the API server has no definition of {}: install the chart with crds.enabled, or charts/hone-crds of this version"
)
SILENT_SECONDS = 120.0


@dataclass
class Listing:
    """Compares the API server's objects with the cache."""

    cluster: Cluster
    cache: Cache
    changed: Callable[[str, Mapping[str, Any]], None]
    """Called with kind and body of every object that is new, newer or gone."""
    namespaces: Sequence[str | None] = (None,)
    """None: all."""
    selectors: Mapping[str, str] = field(default_factory=lambda: SELECTORS)
    """Of every kind that is watched."""
    deaf: Callable[[str], None] = lambda kind: None
    """Called with the kind of a watch that delivers nothing, though objects change."""
    _listed_at: dict[tuple[str, str | None], str] = field(default_factory=dict)
    """The resourceVersion of the list that filled the cache, by kind and namespace, until a watch begins there."""
    _heard: dict[str, float] = field(default_factory=dict)
    _deaf: dict[str, int] = field(default_factory=dict)
    """Consecutive comparisons that found changes which a silent watch has not delivered."""

    def heard(self, kind: str) -> None:
        """A watch of this kind has delivered an event."""
        self._heard[kind] = time.monotonic()

    async def fill(self) -> None:
        """Put every object into the cache.

        Raises:
            MissingKindError: a definition is not installed.
            ClusterError: our rights do not suffice.
        """
        for kind, selector in self.selectors.items():
            try:
                await self._fill(kind, selector)
            except NotFoundError as error:
                if kind not in LATER:
                    message = NO_KUEUE if kind == "Workload" else NO_DEFINITION.format(kind)
                    raise MissingKindError(404, "NotFound", message) from error
                log.warning("no definition of %s is installed: apply the CRDs of this version, then restart", kind)

    async def _fill(self, kind: str, selector: str) -> None:
        for namespace in self.namespaces:
            note = partial(self._note_version, (kind, namespace))
            async for body in self.cluster.scan(kind, namespace, selector, listed_at=note):
                if self.cache.is_kept(kind, body):
                    self.cache.put(kind, body, is_stripped=True)

    def _note_version(self, collection: tuple[str, str | None], version: str) -> None:
        self._listed_at.setdefault(collection, version)

    def filled_at(self, kind: str, namespace: str | None) -> str | None:
        """The resourceVersion from which the first watch brings everything that the cache does not have yet; None: it
        needs a list of its own.

        A Workload may be older than its own list, and its Job newer than the list of Jobs: it was passed over.
        """
        version = self._listed_at.pop((kind, namespace), None)
        return version if version and kind != "Workload" else None

    async def compare_one(self, kind: str, namespace: str | None) -> str:
        """Repair what the cache has of one kind; gives the resourceVersion of the list.

        Raises:
            ClusterError: as the API server refuses it.
        """
        versions: list[str] = []
        await self._compare(kind, namespace, self.selectors[kind], versions.append)
        return versions[0]

    async def compare(self) -> None:
        """Find what the watches missed and repair it: read what is newer, forget what is gone."""
        for kind, selector in self.selectors.items():
            late = 0
            for namespace in self.namespaces:
                with contextlib.suppress(*([NotFoundError] if kind in LATER else [])):
                    late += await self._compare(kind, namespace, selector)
            silent = time.monotonic() - self._heard.get(kind, 0.0) > SILENT_SECONDS
            self._deaf[kind] = self._deaf.get(kind, 0) + 1 if late and silent else 0
            if self._deaf[kind] > 1:  # a single time may be a very recent change
                log.warning("the watch of %s delivers nothing, though objects have changed: it begins again", kind)
                self._deaf[kind] = 0
                self.deaf(kind)

    async def _compare(
        self,
        kind: str,
        namespace: str | None,
        selector: str,
        listed_at: Callable[[str], None] = lambda version: None,
    ) -> int:
        late, listed = 0, set[str]()
        before = {b["metadata"]["uid"]: b for b in self.cache.items(kind)}
        scan = self.cluster.scan(kind, namespace, selector, metadata_only=True, unread=listed, listed_at=listed_at)
        async for body in scan:
            meta = body["metadata"]
            listed.add(meta["uid"])
            if not self.cache.is_kept(kind, body):
                continue
            cached = self.cache.get(kind, meta["namespace"], meta["name"])
            if cached is None or cached["metadata"]["uid"] != meta["uid"] or version(cached) < version(body):
                with contextlib.suppress(UnreadableObjectError):  # noted; the previously read body stays
                    live = await self.cluster.get(kind, meta["namespace"], meta["name"])
                    if live is not None and self.cache.put(kind, live):
                        late += 1
                        self.changed(kind, live)
        for uid, old in before.items():
            here = namespace is None or old["metadata"]["namespace"] == namespace
            meta = old["metadata"]
            if here and uid not in listed and self.cache.get(kind, meta["namespace"], meta["name"]) is old:
                live, exists = await self._live(kind, old)
                if exists:
                    if live is not None and self.cache.put(kind, live):  # it has lost its label: no watch reports it
                        self.changed(kind, live)
                    continue
                late += 1
                self.cache.remove(kind, old)
                self.changed(kind, old)
        if late:
            log.info("%d of kind %s had changed without an event from a watch so far", late, kind)
        return late

    async def _live(self, kind: str, body: Mapping[str, Any]) -> tuple[dict[str, Any] | None, bool]:
        """An object that a list lacks, and whether it exists: an API server's list can be older than what we know, and
        what the cache has forgotten as deleted never comes back."""
        meta = body["metadata"]
        try:
            live = await self.cluster.get(kind, meta["namespace"], meta["name"])
        except UnreadableObjectError:
            return None, True
        return live, live is not None and live["metadata"]["uid"] == meta["uid"]
