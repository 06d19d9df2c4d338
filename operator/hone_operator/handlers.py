"""What happens to each object of a list or a watch: the body is kept, and a run of the keys concerned is requested."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any
from weakref import WeakSet

import aiohttp
import kopf

from hone_api import GROUP, VERSION
from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import ClusterError
from hone_operator.apiserver.listing import JOB_UID, SELECTORS, Listing
from hone_operator.apiserver.watchguard import Note, session
from hone_operator.desired.core.names import COMPONENT, OWNER_LABEL
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key, contents_of, keys_concerned, patience, served_in
from hone_operator.queueing.workqueue import WorkQueue

log = logging.getLogger(__name__)
COMPARE_SECONDS = 60.0
RESOURCES: dict[str, tuple[str, ...]] = {
    "FineTuneJob": (GROUP, VERSION, "finetunejobs"),
    "Dataset": (GROUP, VERSION, "datasets"),
    "ModelVersion": (GROUP, VERSION, "modelversions"),
    "Model": (GROUP, VERSION, "models"),
    "Job": ("batch", "v1", "jobs"),
    "Pod": ("", "v1", "pods"),
}
CHUNK = 25
"""Objects that kopf lists in one request: hostile ones of 1.5 MiB each are then 38 MB of text, not 750."""
WORKLOADS = ("kueue.x-k8s.io", "v1beta2", "workloads")


class NoDiffBase(kopf.DiffBaseStorage):
    """We keep no last-handled state; otherwise kopf copies every body on every event."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


class Watches:
    """kopf's watches of all kinds, into a cache and a queue."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        queue: WorkQueue[Key],
        namespaces: Sequence[str],
        workloads: bool = False,
    ):
        """
        Args:
            workloads: whether to watch Kueue's too.
        """
        self.cache, self.queue = cache, queue
        self.resources = {**RESOURCES, "Workload": WORKLOADS} if workloads else RESOURCES
        selectors = {**SELECTORS, "Workload": JOB_UID} if workloads else SELECTORS
        self.listing = Listing(cluster, cache, self.changed, namespaces or (None,), selectors)
        self.listing.deaf = self._begin_again
        self.on_deaf: Callable[[str], None] = lambda kind: None
        """Called with the kind of a watch that delivers nothing, though objects change."""
        self._open: dict[str, WeakSet[aiohttp.ClientResponse]] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self.gone: tuple[Callable[[str], None], ...] = ()
        """Called with the uid of each deleted object of ours."""
        self.removed: Callable[[str, Mapping[str, Any]], None] = lambda kind, body: None
        """Called with kind and body of each."""
        self.note: Note = lambda kind, skipped: None
        """Called with each object that a watch has to skip."""

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """Add our handlers."""
        for kind, resource in self.resources.items():
            self._register(registry, kind, resource)

        @kopf.on.login(registry=registry)
        async def login(**kwargs: Any) -> Any:
            info = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
            return session(info, self) if info else None

    def _register(self, registry: kopf.OperatorRegistry, kind: str, resource: tuple[str, ...]) -> None:
        @kopf.on.event(*resource, id=f"watch-{kind.lower()}", registry=registry)
        async def watch(event: Any, **_: Any) -> None:
            """kopf watches what has a handler; its objects are taken from the session's responses."""

    def take(self, kind: str, body: Mapping[str, Any], *, is_deleted: bool) -> bool:
        """Keep or remove an object of a list or a watch of kopf, stripped; False for kinds that others handle."""
        if kind not in self.resources:
            return False
        self.listing.heard(kind)
        if not self.cache.is_kept(kind, body):
            return True
        if is_deleted and self.listing.selectors.get(kind) and not body["metadata"].get("deletionTimestamp"):
            self._start(self._deleted_or_unlabelled(kind, body))
        else:
            self._keep(kind, body, is_deleted=is_deleted)
        return True

    def _keep(self, kind: str, body: Mapping[str, Any], *, is_deleted: bool, is_stripped: bool = True) -> None:
        lost = {} if is_deleted else self.cache.lost_labels(kind, body)
        if is_deleted:
            self.cache.remove(kind, body)
        elif not self.cache.put(kind, body, is_stripped=is_stripped):
            return  # the cache has it from our own write or list
        if lost:
            self._start(self._restore_labels(kind, body, lost))
        self.changed(kind, body)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._looking.add(task)  # the event loop has weak references alone
        task.add_done_callback(self._looking.discard)

    async def _deleted_or_unlabelled(self, kind: str, body: Mapping[str, Any]) -> None:
        """A watch with a selector reports as deleted also what has lost the label, and is there.

        If the API server cannot be asked now, the next comparison of lists finds out.
        """
        meta = body["metadata"]
        try:
            live = await self.listing.cluster.get(kind, meta["namespace"], meta["name"])
        except (ClusterError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("%s %s/%s: whether it was deleted is unknown: %s", kind, meta["namespace"], meta["name"], error)
            return
        if live is None or live["metadata"]["uid"] != meta["uid"]:
            self._keep(kind, body, is_deleted=True)
        elif self.cache.is_ours(live):
            self._keep(kind, live, is_deleted=False, is_stripped=False)
        else:
            self.cache.remove(kind, body, is_deleted=False)

    async def _restore_labels(self, kind: str, body: Mapping[str, Any], lost: Mapping[str, str]) -> None:
        """Give a Job of ours its labels back, by which it is watched and found. Elsewhere than in namespaces that are
        enabled the API server refuses it; then lists are compared once a minute."""
        meta = body["metadata"]
        try:
            await self.listing.cluster.set_labels(kind, body, lost)
            log.info("%s %s/%s has lost labels, and got them back", kind, meta["namespace"], meta["name"])
        except (ClusterError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("%s %s/%s has lost labels: %s", kind, meta["namespace"], meta["name"], error)

    def opened(self, kind: str, response: aiohttp.ClientResponse) -> None:
        """A watch of this kind has begun."""
        self._open.setdefault(kind, WeakSet()).add(response)

    def _begin_again(self, kind: str) -> None:
        """Close the watches of a kind, which deliver nothing: kopf opens others. The operator need not end for it:
        comparing lists has found what they missed."""
        self.on_deaf(kind)
        for response in list(self._open.get(kind, ())):
            response.close()

    def filled_at(self, kind: str, namespace: str | None) -> str | None:
        """The resourceVersion at which the first watch of a kind begins; see `Listing.filled_at`."""
        return self.listing.filled_at(kind, namespace)

    def is_known(self, kind: str, body: Mapping[str, Any]) -> bool:
        """Whether the cache has this version of an object, which also shows that its watch works."""
        is_here = self.cache.has(kind, body)
        if is_here:
            self.listing.heard(kind)
        return is_here

    def changed(self, kind: str, body: Mapping[str, Any]) -> None:
        """Request a run of every key that this object concerns; forget the state kept for a deleted one."""
        meta = body["metadata"]
        if self.cache.get(kind, meta["namespace"], meta["name"]) is None and kind in (*OWNER_LABEL, "Job"):
            for forget in self.gone:
                forget(meta["uid"])
            if kind in OWNER_LABEL:
                self.removed(kind, body)
        for key in keys_concerned(kind, body, self.cache):
            self.queue.request(key, 0.0 if kind in OWNER_LABEL else patience(kind, body, key, self.cache))

    async def resync(self, seconds: float) -> None:
        """Compare with the API server once a minute; request a run of every object every `seconds`."""
        last = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(min(COMPARE_SECONDS, seconds))
            try:
                await self.listing.compare()
            except (ClusterError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("the API server cannot be asked what changed: %s", error)
            if asyncio.get_running_loop().time() - last >= seconds:
                last = asyncio.get_running_loop().time()
                self.request_all()

    def request_all(self) -> None:
        """Request a run of every object of ours."""
        self._request(lambda namespace: True)

    def request_all_in(self, namespace: str) -> None:
        """The same for one namespace."""
        self._request(lambda other: other == namespace)

    def _request(self, wanted: Callable[[str], bool]) -> None:
        namespaces = set()
        for kind in OWNER_LABEL:
            for body in self.cache.items(kind):
                if not wanted(body["metadata"]["namespace"]):
                    continue
                namespaces.add(body["metadata"]["namespace"])
                self.queue.request(Key(kind, body["metadata"]["namespace"], body["metadata"]["name"]))
        for namespace in sorted(namespaces):
            self.queue.request(contents_of(namespace))
            self.queue.request(served_in(namespace))


def configure(settings: kopf.OperatorSettings) -> None:
    """Configure kopf. docs/concepts/architecture.md has a reason for each value; none stores anything on an object."""
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = [1, 2, 4, 8, 15, 30]
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.inactivity_timeout = 70
    settings.watching.reconnect_backoff = 1
    settings.watching.chunk_size = CHUNK
    settings.watching.label_selectors["batch", "v1", "jobs"] = COMPONENT
    settings.watching.label_selectors["", "v1", "pods"] = COMPONENT
    settings.watching.label_selectors[WORKLOADS] = JOB_UID
    settings.queueing.idle_timeout = 0.5
    settings.process.ultimate_exiting_timeout = 20
    settings.persistence.diffbase_storage = NoDiffBase()
