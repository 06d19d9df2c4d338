"""The operator's intake: objects of lists and watches are kept; a run of the keys that they concern is requested."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

import aiohttp

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import ClusterError
from hone_operator.apiserver.listing import JOB_UID, LATER, SELECTORS, Listing
from hone_operator.apiserver.reflector import Note, Reflector
from hone_operator.desired.core.names import OWNER_LABEL
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key, contents_of, keys_concerned, patience, served_key
from hone_operator.queueing.workqueue import WorkQueue

log = logging.getLogger(__name__)
COMPARE_SECONDS = 60.0


class Watches:
    """Watches of all kinds, into a cache and a queue."""

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
        selectors = {**SELECTORS, "Workload": JOB_UID} if workloads else SELECTORS
        self.listing = Listing(cluster, cache, self.changed, namespaces or (None,), selectors)
        self.listing.deaf = self._begin_again
        self.on_deaf: Callable[[str], None] = lambda kind: None
        """Called with the kind of a watch that delivers nothing, though objects change."""
        self.reflectors: list[Reflector] = []
        self._looking: set[asyncio.Task[None]] = set()
        self.gone: tuple[Callable[[str], None], ...] = ()
        """Called with the uid of each deleted object of ours."""
        self.removed: Callable[[str, Mapping[str, Any]], None] = lambda kind, body: None
        """Called with kind and body of each."""
        self.note: Note = lambda kind, skipped: None
        """Called with each object that a watch has to skip."""

    def _reflectors(self) -> list[Reflector]:
        """One for each kind and namespace; each begins where the list ended that filled the cache."""
        return [
            Reflector(
                self.listing.cluster,
                kind,
                namespace,
                selector,
                self.take,
                self.is_known,
                partial(self.listing.compare_one, kind, namespace),
                self.note,
                self.listing.filled_at(kind, namespace),
                may_lack=kind in LATER,
            )
            for kind, selector in self.listing.selectors.items()
            for namespace in self.listing.namespaces
        ]

    async def run(self) -> None:
        """Watch every kind until cancelled.

        Raises:
            ClusterError: the API server refuses a watch for good.
        """
        self.reflectors = self._reflectors()
        async with asyncio.TaskGroup() as group:
            for reflector in self.reflectors:
                group.create_task(reflector.run())

    def take(self, kind: str, body: Mapping[str, Any], is_deleted: bool) -> None:
        """Keep or remove an object of a watch, stripped."""
        self.listing.heard(kind)
        if not self.cache.is_kept(kind, body):
            return
        if is_deleted and self.listing.selectors.get(kind) and not body["metadata"].get("deletionTimestamp"):
            self._start(self._deleted_or_unlabelled(kind, body))
        else:
            self._keep(kind, body, is_deleted=is_deleted)

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

    def _begin_again(self, kind: str) -> None:
        """End the watches of a kind, which deliver nothing, so that others begin. The operator need not end for it:
        comparing lists has found what they missed."""
        self.on_deaf(kind)
        for reflector in self.reflectors:
            if reflector.kind == kind:
                reflector.begin_again()

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
            self.queue.request(served_key(namespace))
