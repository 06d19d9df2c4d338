"""Carries out decisions: create, apply, record, write status and Events, delete."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hone_api.words.states import Reason
from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import (
    AlreadyExistsError,
    ClusterError,
    ConflictError,
    NamespaceGoneError,
    NotFoundError,
    RefusedError,
    TooLargeError,
    UnreadableObjectError,
)
from hone_operator.apiserver.existence import Existence
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.store import store
from hone_operator.desired.version.model_version import maker
from hone_operator.namespaces import networks
from hone_operator.objects import cache as caches
from hone_operator.objects.cache import Cache
from hone_operator.objects.decoding import IDENTITY, Skipped
from hone_operator.queueing.routing import Key, Request, keys_concerned, patience
from hone_operator.reconcile.core.notreconciled import status_refused, write_refused
from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.core.refusals import refusal
from hone_operator.writing.adopt import difference
from hone_operator.writing.contested import Contested
from hone_operator.writing.events import event_body
from hone_operator.writing.unreadable import UNWRITABLE, Unreadable

log = logging.getLogger(__name__)


class NameTakenError(Exception):
    """An object that is not ours has the name of one of ours."""


@dataclass
class Writes:
    """Writes to the API server, and puts the results into the cache."""

    cluster: Cluster
    cache: Cache
    platform: Platform
    exists: Existence
    unreadable: Unreadable
    now: Callable[[], datetime]
    request: Request
    """The queue's."""
    on_refused_status: Callable[[Key], None]
    contested: Contested
    offering: set[tuple[str, str, str]] = field(default_factory=set)
    """Kind, namespace and name of what some run creates now because it is missing."""

    async def create(self, key: Key, outcome: Outcome) -> list[Refusal]:
        """Create what must exist, step by step; refusals of the API server are returned as data."""
        if any(body["kind"] == "Job" for body in outcome.create):
            await self._ensure_store(key.namespace)
        uids: dict[tuple[str, str], str] = {}
        for step in outcome.creation_steps():
            tries = (self._try_to_create(key, _with_owner_uids(body, uids)) for body in step)
            # Wait for all of them: no other run of this key may begin while a request is open.
            for body, result in zip(step, await asyncio.gather(*tries, return_exceptions=True), strict=True):
                if isinstance(result, BaseException):
                    raise result
                if isinstance(result, Refusal):
                    return [result]
                uids[body["kind"], body["metadata"]["name"]] = result["metadata"]["uid"]
        return []

    async def _try_to_create(self, key: Key, body: dict[str, Any]) -> Mapping[str, Any] | Refusal:
        """The created object, or why it cannot be created."""
        try:
            return await self._create_one(body)
        except NamespaceGoneError:
            raise
        except RefusedError as error:
            if error.status == 403 and "quota" not in error.message:
                log.warning("%s: %s %s refused: %s", key, body["kind"], body["metadata"]["name"], error)
            return refusal(body, error.status, error.message)
        except NameTakenError as error:
            return Refusal(body["kind"], body["metadata"]["name"], Reason.NAME_TAKEN, str(error))

    async def _create_one(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        kind, meta = body["kind"], body["metadata"]
        try:
            created = await self.cluster.create(body, brief=True)
        except AlreadyExistsError:
            try:
                existing = await self.cluster.get(kind, meta["namespace"], meta["name"])
            except UnreadableObjectError as error:
                words = f"a {kind} of this name is not read, {error.reason}: delete it"
                raise NameTakenError(words) from None
            if existing is not None and kind == "PersistentVolumeClaim":
                return existing  # another run of this namespace has made it in the same moment
            if existing is None or "ownerReferences" not in meta:
                raise  # it changed in the meantime: decide again
            if caches.owner_of(existing) != caches.owner_of(body):
                raise NameTakenError(f"another {kind} has this name: delete it, or rename the object") from None
            if where := difference(existing, body):
                words = f"a {kind} of this name has another {where} than the operator writes: delete it"
                raise NameTakenError(words) from None
            created = existing
        if kind == "Job":
            self.keep(kind, created)
        return created

    async def _ensure_store(self, namespace: str) -> None:
        if await self.exists.of_claim(namespace, self.platform.store.claim_name):
            return
        with contextlib.suppress(AlreadyExistsError):
            await self.cluster.create(store.claim(namespace, self.platform))

    async def carry_out(self, key: Key, body: Mapping[str, Any], outcome: Outcome) -> float | None:
        """Write what was decided, and delete.

        Returns:
            Seconds after which to try again, where another writer has changed the status back too often.
        """
        # Before the status: once it says that the attempt has ended, nothing looks for its networks again.
        await self._delete(gone for gone in outcome.delete if gone["kind"] in networks.KINDS)
        for target in outcome.apply:
            await self._apply(key, body, target)
        for record in outcome.record:
            await self._record(key, body, record)
        for offered in outcome.offer:
            await self._offer(key, offered)
        pause = 0.0
        if outcome.status is not None:
            pause = self.contested.pause(body, outcome.status, time.monotonic())
        if pause:
            log.warning("%s: another writer keeps changing its status back; ours is written in %.0f s", key, pause)
        elif outcome.status is not None:
            try:
                stored = await self.cluster.apply_status(key.kind, body, outcome.status)
            except (NotFoundError, ConflictError) as error:
                log.info("%s: gone before its status was written: %s", key, error)
                return None
            except RefusedError as error:
                await self._show_refused(key, body, error)
                raise
            except TooLargeError as error:
                meta = {k: body["metadata"][k] for k in IDENTITY}
                self.unreadable.note(key.kind, Skipped(UNWRITABLE, error.message, meta))
                return None
            self.keep(key.kind, stored)
            before, after = (body.get("status") or {}).get("phase"), outcome.status.get("phase")
            if before != after:
                log.info("%s: %s, before %s", key, after, before or "new")
            await self._emit(body, outcome)
        await self._delete(gone for gone in outcome.delete if gone["kind"] not in networks.KINDS)
        return pause or None

    async def _apply(self, key: Key, body: Mapping[str, Any], target: Mapping[str, Any]) -> None:
        try:
            stored = await self.cluster.apply(target)
        except RefusedError as error:
            await self._show_write_refused(key, body, target, error)
            raise
        if target["kind"] in ("Job", "Workload"):
            self.keep(target["kind"], stored)

    async def _delete(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        for gone in bodies:
            if await self.cluster.delete(gone["kind"], gone):
                # A run that comes before the watch's event would delete it again.
                self.cache.remove(gone["kind"], gone)

    async def _show_refused(self, key: Key, body: Mapping[str, Any], error: RefusedError) -> None:
        """Write the previous status, which was valid, with the API server's message, which says why nothing changes."""
        log.error("%s: the API server refuses its status: %s", key, error)
        self.on_refused_status(key)
        await self._show(key, body, status_refused(body, self.now(), error.message))

    async def _show_write_refused(
        self, key: Key, body: Mapping[str, Any], target: Mapping[str, Any], error: RefusedError
    ) -> None:
        log.error("%s: the API server refuses %s: %s", key, target["kind"], error)
        await self._show(key, body, write_refused(body, self.now(), target, error.message))

    async def _show(self, key: Key, body: Mapping[str, Any], outcome: Outcome) -> None:
        if outcome.status is not None:
            with contextlib.suppress(ClusterError):
                self.keep(key.kind, await self.cluster.apply_status(key.kind, body, outcome.status))
                await self._emit(body, outcome)

    def keep(self, kind: str, body: Mapping[str, Any]) -> None:
        """Put what we wrote into the cache, and request runs of the keys concerned: the watch will bring nothing
        newer."""
        if self.cache.put(kind, body):
            for key in keys_concerned(kind, body, self.cache):
                self.request(key, patience(kind, body, key, self.cache))

    async def _record(self, key: Key, body: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Create a ModelVersion; an existing one must belong to the same run or import."""
        try:
            stored = await self.cluster.create(record, brief=True)
        except NamespaceGoneError:
            raise
        except RefusedError as error:
            await self._show_write_refused(key, body, record, error)
            raise
        except AlreadyExistsError:
            meta = record["metadata"]
            existing = await self.cluster.get("ModelVersion", meta["namespace"], meta["name"])
            if existing is None or maker(existing) != maker(record):
                raise
            stored = existing
        self.keep("ModelVersion", stored)

    async def _offer(self, key: Key, body: Mapping[str, Any]) -> None:
        """Create an object without which everything works as well, unless another run has created it or does so now:
        a hundred jobs may have missed it at the same time."""
        missing = (body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])
        if missing in self.offering or self.cache.get(*missing) is not None:
            return
        self.offering.add(missing)
        try:
            self.keep(body["kind"], await self.cluster.create(body, brief=True))
        except AlreadyExistsError:
            return  # whoever made it, perhaps in Git
        except (NotFoundError, RefusedError) as error:
            log.info("%s: %s %s is not created: %s", key, body["kind"], body["metadata"]["name"], error)
        finally:
            self.offering.discard(missing)

    async def report_unreadable(self, key: Key) -> None:
        """Write the Event about an object that was skipped; its status stays unchanged."""
        if event := self.unreadable.event(key, self.now()):
            with contextlib.suppress(
                AlreadyExistsError, RefusedError, NotFoundError
            ):  # already written, or the namespace is being deleted
                await self.cluster.create(event, brief=True)
            self.unreadable.written(key)

    async def _emit(self, body: Mapping[str, Any], outcome: Outcome) -> None:
        """Write Events. They are news, not state: a failure to write one is only logged."""
        for event in outcome.events:
            try:
                await self.cluster.create(event_body(body, event, self.now()), brief=True)
            except AlreadyExistsError:
                continue
            except NamespaceGoneError:
                raise
            except Exception as error:
                log.warning("event %s of %s not written: %s", event.reason, body["metadata"]["name"], error)


def _with_owner_uids(body: Mapping[str, Any], uids: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """The object with the uid of its owner, if the same decision created that owner a moment ago."""
    meta = body["metadata"]
    owners = [{**ref, "uid": ref["uid"] or uids[ref["kind"], ref["name"]]} for ref in meta.get("ownerReferences") or ()]
    return {**body, "metadata": {**meta, "ownerReferences": owners}} if owners else {**body}
