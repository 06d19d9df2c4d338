"""Carry out what was decided: create, apply, record, write the status and Events, delete."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hone_api.states import Reason
from hone_operator import cache as caches
from hone_operator import networks
from hone_operator.adopt import difference
from hone_operator.cache import Cache
from hone_operator.cluster import (
    AlreadyExistsError,
    Cluster,
    ClusterError,
    ConflictError,
    NamespaceGoneError,
    NotFoundError,
    RefusedError,
    TooLargeError,
    UnreadableObjectError,
)
from hone_operator.decoding import IDENTITY, Skipped
from hone_operator.desired import store
from hone_operator.desired.platform import Platform
from hone_operator.events import event_body
from hone_operator.existence import Existence
from hone_operator.reconcile.notreconciled import status_refused
from hone_operator.reconcile.outcome import Outcome, Refusal
from hone_operator.reconcile.refusals import refusal
from hone_operator.routing import Key, concerned
from hone_operator.unreadable import UNWRITABLE, Unreadable

log = logging.getLogger(__name__)


class NameTakenError(Exception):
    """A foreign object has the name of one of ours."""


@dataclass
class Writes:
    """Writes to the API server, and to the cache what came of it."""

    cluster: Cluster
    cache: Cache
    platform: Platform
    exists: Existence
    unreadable: Unreadable
    now: Callable[[], datetime]
    request: Callable[[Key], None]
    """The queue's."""
    on_refused_status: Callable[[Key], None]

    async def create(self, key: Key, outcome: Outcome) -> list[Refusal]:
        """Make what must exist, step by step; what the API server refuses comes back as data."""
        if any(body["kind"] == "Job" for body in outcome.create):
            await self._ensure_store(key.namespace)
        uids: dict[tuple[str, str], str] = {}
        for step in outcome.creation_steps():
            tries = (self._try_to_create(key, _owned(body, uids)) for body in step)
            # All of them end here: no other run of this key may begin while one is on its way.
            for body, made in zip(step, await asyncio.gather(*tries, return_exceptions=True), strict=True):
                if isinstance(made, BaseException):
                    raise made
                if isinstance(made, Refusal):
                    return [made]
                uids[body["kind"], body["metadata"]["name"]] = made["metadata"]["uid"]
        return []

    async def _try_to_create(self, key: Key, body: dict[str, Any]) -> Mapping[str, Any] | Refusal:
        """The object as it was made, or why it cannot be."""
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
            made = await self.cluster.create(body, brief=True)
        except AlreadyExistsError:
            try:
                found = await self.cluster.get(kind, meta["namespace"], meta["name"])
            except UnreadableObjectError as error:
                words = f"a {kind} of this name is not read, {error.reason}: delete it"
                raise NameTakenError(words) from None
            if found is None or "ownerReferences" not in meta:
                raise  # it changed under our hands: decide again
            if caches.owner_of(found) != caches.owner_of(body):
                raise NameTakenError(f"another {kind} has this name: delete it, or rename the object") from None
            if where := difference(found, body):
                words = f"a {kind} of this name has another {where} than the operator writes: delete it"
                raise NameTakenError(words) from None
            made = found
        if kind == "Job":
            self.keep(kind, made)
        return made

    async def _ensure_store(self, namespace: str) -> None:
        if await self.exists.of_claim(namespace, self.platform.store_claim):
            return
        with contextlib.suppress(AlreadyExistsError):
            await self.cluster.create(store.claim(namespace, self.platform))

    async def carry_out(self, key: Key, body: Mapping[str, Any], outcome: Outcome) -> None:
        # Before the status: once it says that the attempt has ended, nobody looks for its networks again.
        await self._delete(gone for gone in outcome.delete if gone["kind"] in networks.KINDS)
        for target in outcome.apply:
            made = await self.cluster.apply(target)
            if target["kind"] == "Job":
                self.keep("Job", made)
        for record in outcome.record:
            await self._record(record)
        if outcome.status is not None:
            try:
                made = await self.cluster.apply_status(key.kind, body, outcome.status)
            except (NotFoundError, ConflictError) as error:
                log.info("%s: gone before its status was written: %s", key, error)
                return
            except RefusedError as error:
                await self._show_refused(key, body, error)
                raise
            except TooLargeError as error:
                meta = {k: body["metadata"][k] for k in IDENTITY}
                self.unreadable.note(key.kind, Skipped(UNWRITABLE, error.message, meta))
                return
            self.keep(key.kind, made)
            before, after = (body.get("status") or {}).get("phase"), outcome.status.get("phase")
            if before != after:
                log.info("%s: %s, before %s", key, after, before or "new")
            await self._emit(body, outcome)
        await self._delete(gone for gone in outcome.delete if gone["kind"] not in networks.KINDS)

    async def _delete(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        for gone in bodies:
            await self.cluster.delete(gone["kind"], gone)

    async def _show_refused(self, key: Key, body: Mapping[str, Any], error: RefusedError) -> None:
        """Write the status before, which was valid, with the API server's words: they say why it stands still."""
        log.error("%s: the API server refuses its status: %s", key, error)
        self.on_refused_status(key)
        outcome = status_refused(body, self.now(), error.message)
        if outcome.status is not None:
            with contextlib.suppress(ClusterError):
                self.keep(key.kind, await self.cluster.apply_status(key.kind, body, outcome.status))
                await self._emit(body, outcome)

    def keep(self, kind: str, made: Mapping[str, Any]) -> None:
        """What we wrote is known at once, and news for whom it concerns: the watch will bring nothing newer."""
        if self.cache.put(kind, made):
            for key in concerned(kind, made, self.cache):
                self.request(key)

    async def _record(self, record: Mapping[str, Any]) -> None:
        """Create a ModelVersion; one that is there must be of the same run."""
        try:
            made = await self.cluster.create(record, brief=True)
        except AlreadyExistsError:
            meta = record["metadata"]
            found = await self.cluster.get("ModelVersion", meta["namespace"], meta["name"])
            uid = record["spec"]["lineage"]["job"]["uid"]
            if found is None or found["spec"].get("lineage", {}).get("job", {}).get("uid") != uid:
                raise
            made = found
        self.keep("ModelVersion", made)

    async def tell_unreadable(self, key: Key) -> None:
        """Write the Event about an object that was skipped; its status stays as it is."""
        if event := self.unreadable.event(key, self.now()):
            with contextlib.suppress(AlreadyExistsError, RefusedError, NotFoundError):  # told, or the namespace goes
                await self.cluster.create(event, brief=True)
            self.unreadable.written(key)

    async def _emit(self, body: Mapping[str, Any], outcome: Outcome) -> None:
        """Events are news, not state: one that cannot be written is only logged."""
        for event in outcome.events:
            try:
                await self.cluster.create(event_body(body, event, self.now()), brief=True)
            except AlreadyExistsError:
                continue
            except NamespaceGoneError:
                raise
            except Exception as error:
                log.warning("event %s of %s not written: %s", event.reason, body["metadata"]["name"], error)


def _owned(body: Mapping[str, Any], uids: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """The object, with the uid of its owner where that was made a moment ago, by the same decision."""
    meta = body["metadata"]
    owners = [{**ref, "uid": ref["uid"] or uids[ref["kind"], ref["name"]]} for ref in meta.get("ownerReferences") or ()]
    return {**body, "metadata": {**meta, "ownerReferences": owners}} if owners else {**body}
