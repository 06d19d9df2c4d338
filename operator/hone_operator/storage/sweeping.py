"""Keeps the ledger of each namespace's content, and removes what nothing refers to any more.

Datasets have no finalizer, and deleting one waits for nothing: its leftovers are found by comparing the ledger with
the existing objects.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from hone_api.contract.report import StoredBytes, SweepResult
from hone_api.plan import SweepPlan
from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import AlreadyExistsError, NamespaceGoneError, NotFoundError, RefusedError
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import PLAN as VOLUME
from hone_operator.desired.core.shared import wanted
from hone_operator.desired.staging.encode import COMPONENT as ENCODE
from hone_operator.desired.store.sweep import (
    FULL,
    PLAN,
    STORED,
    SweepInputs,
    ledger,
    recorded,
    sweep,
    sweep_plan,
    with_room,
)
from hone_operator.objects import cache as caches
from hone_operator.objects.cache import Cache
from hone_operator.observe import modelpods
from hone_operator.reconcile.core import references
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.references import encoding_work
from hone_operator.reconcile.store import models, store_gc
from hone_operator.storage import orphans
from hone_operator.times import format_time, parse_time, read_time

log = logging.getLogger(__name__)

REFERRERS = ("Dataset", "FineTuneJob", "ModelVersion", "Job", "Pod")
MEASURED = timedelta(days=1)
"""Longest interval between measurements of a store; leftovers of long-deleted jobs are removed as well."""
NEW = timedelta(minutes=1)
WAITS = timedelta(minutes=1)
"""Interval at which an unfinished Job is compared with the references of objects."""
BYTES: TypeAdapter[dict[str, int]] = TypeAdapter(StoredBytes)
Stored = dict[str, dict[str, int]]
"""Bytes by folder of the store, by namespace."""
Objects = list[tuple[str, Mapping[str, Any]]]
"""Kinds and bodies."""
Claims = dict[str, bool]
"""From `models.claimed_folders`."""


def note_gone(departed: dict[str, Claims], kind: str, body: Mapping[str, Any], claim: str) -> None:
    """Remember what a deleted ModelVersion said about its model, by namespace, until the ledger has it."""
    if kind == "ModelVersion" and (claims := models.claimed_folders([(kind, body)], claim)):
        noted = departed.setdefault(body["metadata"]["namespace"], {})
        noted |= {key: goes and noted.get(key, True) for key, goes in claims.items()}


@dataclass
class Sweeper:
    """Processes one namespace."""

    cluster: Cluster
    cache: Cache
    platform: Platform
    now: Callable[[], datetime]
    stored: Stored = field(default_factory=dict)
    """Size of every namespace's store, for metrics."""
    departed: dict[str, Claims] = field(default_factory=dict)
    """What deleted ModelVersions said about their models, by namespace."""

    async def process(self, namespace: str) -> float | None:
        """Update the ledger, and start or finish a Job; returns the seconds until time alone changes something."""
        try:
            return await self._process(namespace)
        except (NotFoundError, RefusedError) as error:
            # The namespace is being deleted, or a quota is used up; the next request looks again.
            log.info("%s: contents are not looked after now: %s", namespace, error)
            self.departed.pop(namespace, None)
            if isinstance(error, NamespaceGoneError):
                self.stored.pop(namespace, None)
            return None

    async def _process(self, namespace: str) -> float | None:
        await self._forget_staging(namespace)
        body = await self.cluster.get("ConfigMap", namespace, names.CONTENTS)
        before = recorded(body or {})
        data = (body or {}).get("data") or {}
        text = measured = data.get(STORED)
        cached, departed = self._cached(namespace), dict(self.departed.get(namespace, {}))
        # In a thread: it reads every text of every object, and the event loop must continue.
        named = await asyncio.to_thread(_looked_through, cached, self.platform.store.claim_name)
        idle_since = store_gc.update_ledger(before, named.contents, self.now(), departed | named.claims)
        job = self._job(body)
        plan = await self._plan(job.body) if job else None
        if job and job.succeeded and plan:
            idle_since = store_gc.without(idle_since, plan)
            text = await self._measured(job)
        idle_since, is_full = await self._with_room(namespace, idle_since)
        if (idle_since, text, is_full) != (before, measured, FULL in data):
            body = await self.cluster.apply(ledger(namespace, idle_since, text, is_full=is_full))
        self._forget_departed(namespace, departed)
        since = self._remember(namespace, text)
        if job and (self._may_go(job) if job.finished else plan is None):
            await self.cluster.delete("Job", job.body)
            job = None
        keep = timedelta(seconds=self.platform.store.keep_unused_seconds)
        if job and plan and not job.finished:
            await self._withdraw(job, plan, named)
            return WAITS.total_seconds()
        if body is None or (job and not job.finished):
            return None
        measure = (since or parse_time(body["metadata"]["creationTimestamp"])) + MEASURED
        due = min(filter(None, (store_gc.next_removal(idle_since, keep), measure)))
        if job:
            due = max(due, parse_time(job.ended_at) + store_gc.RETRY)
        if due <= self.now():
            await self._sweep(namespace, idle_since, partial(ledger, namespace, stored=text, is_full=is_full))
            return None
        return (due - self.now()).total_seconds()

    async def _with_room(self, namespace: str, idle_since: dict[str, str]) -> tuple[dict[str, str], bool]:
        """The part of the ledger that fits into an object, and whether something is left out."""
        kept = await asyncio.to_thread(with_room, idle_since)  # packing tens of thousands takes a while
        left = len(idle_since) - len(kept)
        if left:
            log.warning("%s: %s has no room for %d of %d contents", namespace, names.CONTENTS, left, len(idle_since))
        return kept, left > 0

    async def _withdraw(self, job: ObservedJob, plan: SweepPlan, named: "StoreReferences") -> None:
        """Delete a waiting Job (no node, no quota) if something it is to remove is needed again."""
        if store_gc.is_outdated(plan, named.contents, named.exports, named.whole):
            meta = job.body["metadata"]
            log.info("%s: %s is deleted: an object names what it was to remove", meta["namespace"], meta["name"])
            await self.cluster.delete("Job", job.body)

    def _forget_departed(self, namespace: str, recorded: Claims) -> None:
        """Drop what the ledger has by now; more ModelVersions may have been deleted meanwhile."""
        left = {key: goes for key, goes in self.departed.pop(namespace, {}).items() if key not in recorded}
        if left:
            self.departed[namespace] = left

    async def _forget_staging(self, namespace: str) -> None:
        """Delete the shared Jobs whose work no FineTuneJob of the namespace needs, running or not."""
        runs = self.cache.items("FineTuneJob", namespace)
        needed = await asyncio.to_thread(_staging_needed, runs, self.platform)  # there may be thousands of runs
        read = set(map(id, runs))
        needed |= _staging_needed(  # what has come or changed meanwhile
            [job for job in self.cache.items("FineTuneJob", namespace) if id(job) not in read], self.platform
        )
        for job in self.cache.items("Job", namespace):
            meta, owner = job["metadata"], caches.owner_of(job)
            content = (meta.get("labels") or {}).get(names.CONTENT)
            if not content or content in needed or self._may_not_be_named_yet(job):
                continue
            if (
                owner
                and (owner.api_version, owner.kind) == ("v1", "PersistentVolumeClaim")
                and not meta.get("deletionTimestamp")
            ):
                await self.cluster.delete("Job", job)

    def _may_not_be_named_yet(self, job: Mapping[str, Any]) -> bool:
        """Whether a Job encodes rows, and was created so recently that the status of its FineTuneJob may not."""
        meta = job["metadata"]
        encodes = meta["labels"].get(names.COMPONENT) == ENCODE
        return encodes and parse_time(meta["creationTimestamp"]) + NEW > self.now()

    def _job(self, body: Mapping[str, Any] | None) -> ObservedJob | None:
        jobs = self.cache.children({**body, "kind": "ConfigMap"}, "Job") if body else []
        active = [job for job in jobs if not job["metadata"].get("deletionTimestamp")]
        return ObservedJob(active[0], ()) if active else None

    async def _plan(self, job: Mapping[str, Any]) -> SweepPlan | None:
        """What the Job is to remove; None if its ConfigMap is missing or is not ours."""
        meta = job["metadata"]
        live = await self.cluster.get("Job", meta["namespace"], meta["name"])
        volumes = live["spec"]["template"]["spec"]["volumes"] if live else ()
        plans = [v["configMap"]["name"] for v in volumes if v["name"] == VOLUME]
        config = await self.cluster.get("ConfigMap", meta["namespace"], plans[0]) if plans else None
        text = (config or {}).get("data", {}).get(PLAN, "")
        if live is None or hashlib.sha256(text.encode()).hexdigest() not in _environment(live):
            return None
        return SweepPlan.model_validate_json(text)

    async def _measured(self, job: ObservedJob) -> str:
        """The Job's measurement, for the ledger; if its pod is gone, the previous measurement."""
        meta = job.body["metadata"]
        # Read live: the watch of pods may lag behind the watch of Jobs.
        pods = await self.cluster.list("Pod", meta["namespace"], labels=f"batch.kubernetes.io/job-name={meta['name']}")
        ending = ObservedJob(job.body, pods).result()
        if ending and isinstance(done := ending.result, SweepResult):
            measurement = {"at": job.ended_at, "bytes": done.stored}
            unclaimed = {"unclaimed": done.unclaimed, "unclaimedCount": done.unclaimed_count}
            return json.dumps(measurement | unclaimed if done.unclaimed_count else measurement)
        return json.dumps({"at": job.ended_at, "bytes": self.stored.get(meta["namespace"], {})})

    def _remember(self, namespace: str, text: str | None) -> datetime | None:
        """When the store was last measured; None: never, or the text cannot be parsed.

        Anybody who may edit ConfigMaps of the namespace can have written the text, and everybody reads the metrics.
        """
        try:
            record = json.loads(text or "")
            at, stored = read_time(record["at"]), BYTES.validate_python(record["bytes"])
        except (ValueError, RecursionError, KeyError, TypeError):
            at = None
        if at is None or at > self.now() + MEASURED:
            self.stored.pop(namespace, None)
            return None
        self.stored[namespace] = stored
        return at

    def _may_go(self, job: ObservedJob) -> bool:
        return job.succeeded or parse_time(job.ended_at) + store_gc.RETRY <= self.now()

    def _cached(self, namespace: str) -> list[tuple[str, Mapping[str, Any]]]:
        return [(kind, body) for kind in REFERRERS for body in self.cache.items(kind, namespace)]

    async def _live(self, namespace: str, unread: set[str]) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """The API server's current objects: a watch may lag, and what is removed cannot be restored."""
        for kind in REFERRERS:
            labels = names.COMPONENT if kind in ("Job", "Pod") else ""
            async for body in self.cluster.scan(kind, namespace, labels, unread=unread):
                yield kind, body

    async def _sweep(
        self, namespace: str, idle_since: Mapping[str, str], ledger_of: Callable[[Mapping[str, str]], dict[str, Any]]
    ) -> None:
        as_of, keep = self.now(), timedelta(seconds=self.platform.store.keep_unused_seconds)
        unread: set[str] = set()
        live = [pair async for pair in self._live(namespace, unread)]
        if unread:
            log.warning("%s: no contents are removed: %d objects cannot be read", namespace, len(unread))
            return
        used = store_gc.referred_keys(live, self.platform.store.claim_name)
        whole = references.folders_named_whole(live, self.platform.store.claim_name)
        claim = await self.cluster.get("PersistentVolumeClaim", namespace, self.platform.store.claim_name)
        remove = [content for content in store_gc.idle_contents(idle_since, keep, as_of) if content not in used]
        if claim is None:
            return
        orphaned = await orphans.runs(self.cluster, live)
        if orphaned is None:
            log.warning("%s: no runs are removed: the run of some training pods is unknown", namespace)
        exports = models.that_stay(live, self.platform.store.claim_name, orphaned)
        held = await self._held(namespace, remove, exports) | _held_runs(remove, orphaned)
        held |= {content for content in remove if store_gc.folder_of(content) in whole}
        idle_since = {**idle_since, **dict.fromkeys(held, format_time(as_of))}  # the waiting time starts again
        remove = [content for content in remove if content not in held]
        asked = self._wanted(live, remove, None if "runs" in whole else orphaned)
        what = replace(asked, exports=exports if exports is None else sorted(exports))
        owner = await self.cluster.apply(ledger_of(idle_since))
        job, config = sweep({**owner, "kind": "ConfigMap"}, sweep_plan(what, as_of, self.platform), self.platform)
        created = await self.cluster.create(job, brief=True)
        self.cache.put("Job", created)
        with contextlib.suppress(AlreadyExistsError):  # planted: the Job has no plan of ours, and is deleted next time
            await self.cluster.create(config(created), brief=True)
        log.info("%s: %d contents, runs and models that nothing refers to are removed", namespace, len(remove))

    async def _held(self, namespace: str, remove: Sequence[str], exports: set[str] | None) -> set[str]:
        """From what is to be removed, the models of unfinished runs and those that a pod may use."""
        places = {models.place_of(content): content for content in remove if models.is_key(content)}
        stay = {place for place in places if models.stays(place, exports)}
        if left := places.keys() - stay:
            used = await modelpods.used(self.cluster, namespace, left)
            for place, pod in used.items():
                log.info("%s: models/%s stays while pod %s uses it", namespace, place, pod)
            stay |= used.keys()
        return {places[place] for place in stay}

    def _wanted(self, live: Objects, remove: Sequence[str], orphaned: set[str] | None) -> SweepInputs:
        runs = store_gc.runs_that_stay(live, self.platform.store.claim_name)
        return SweepInputs(
            contents=[c for c in remove if not (c.startswith((store_gc.RUN, store_gc.ENCODED)) or models.is_key(c))],
            encoded=[c.removeprefix(store_gc.ENCODED) for c in remove if c.startswith(store_gc.ENCODED)],
            datasets=[body["metadata"]["name"] for kind, body in live if kind == "Dataset"],
            jobs=None if orphaned is None else sorted({*runs, *orphaned}),
            checkpoints=[uid for uid in runs if f"{store_gc.RUN}{uid}" in remove],
            models=[models.place_of(content) for content in remove if models.is_key(content)],
            making=store_gc.being_made(live),
        )


class StoreReferences(NamedTuple):
    """What objects say of a store."""

    contents: set[str]
    """As in the ledger."""
    exports: set[str]
    """From `models.named_models`."""
    whole: set[str]
    """Folders that are named as a whole."""
    claims: Claims
    """What the ModelVersions say of their models."""


def _looked_through(objects: Objects, claim: str) -> StoreReferences:
    everything = StoreReferences(set(), set(), set(), {})
    for pair in objects:  # one by one: a packed body is unpacked once
        everything.contents.update(store_gc.referred_keys([pair], claim))
        everything.exports.update(models.named_models([pair], claim))
        everything.whole.update(references.folders_named_whole([pair], claim))
        for key, goes in models.claimed_folders([pair], claim).items():
            everything.claims[key] = goes and everything.claims.get(key, True)
    return everything


def _staging_needed(runs: Sequence[Mapping[str, Any]], platform: Platform) -> set[str]:
    """Labels of the shared work that these FineTuneJobs need."""
    needed = {work.key for job in runs for work in wanted(job["spec"], platform)}
    return needed | {work for job in runs if (work := encoding_work(job))}


def _held_runs(remove: Sequence[str], orphaned: set[str] | None) -> set[str]:
    """From what is to be removed, the runs that a pod without a label may write."""
    runs = {content for content in remove if content.startswith(store_gc.RUN)}
    return runs if orphaned is None else runs & {f"{store_gc.RUN}{uid}" for uid in orphaned}


def _environment(job: Mapping[str, Any]) -> list[str]:
    """Values of the container's environment."""
    return [e.get("value", "") for e in job["spec"]["template"]["spec"]["containers"][0].get("env") or ()]
