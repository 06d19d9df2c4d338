"""Observe, decide, carry out: for each of the three kinds. The only place where deciding meets doing."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import aiohttp

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
from hone_operator.desired import modelref, names, store
from hone_operator.desired.materialize import named_datasets, named_versions
from hone_operator.desired.platform import Platform
from hone_operator.events import event_body
from hone_operator.existence import Existence
from hone_operator.jobs import JobReader
from hone_operator.optin import Closed, OptIn
from hone_operator.pace import Pace
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile import dataset, finetunejob, modelversion
from hone_operator.reconcile.attempts import is_open, last_open
from hone_operator.reconcile.conditions import is_true
from hone_operator.reconcile.earlier import made_by
from hone_operator.reconcile.notenabled import not_enabled
from hone_operator.reconcile.notreconciled import internal_error, status_refused
from hone_operator.reconcile.observed import Observed, of_component
from hone_operator.reconcile.outcome import Outcome, Refusal
from hone_operator.reconcile.pods import ObservedJob
from hone_operator.reconcile.refusals import refusal
from hone_operator.reconcile.upstream import Upstream
from hone_operator.routing import CONTENTS, Key, concerned
from hone_operator.stores import StoreReader
from hone_operator.sweeping import Stored, Sweeper
from hone_operator.unreadable import UNREADABLE, UNWRITABLE, Unreadable

log = logging.getLogger(__name__)


class Reports(Protocol):
    """The progress server's store."""

    def latest(self, job_uid: str) -> Latest | None: ...


class NoReports:
    """Where pods do not report."""

    def latest(self, job_uid: str) -> Latest | None:
        return None


@dataclass
class Controllers:
    """Runs one key: the queue's `process`."""

    cluster: Cluster
    cache: Cache
    platform: Platform
    reports: Reports = field(default_factory=NoReports)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    on_done: Callable[[Key, float], None] | None = None
    on_internal_error: Callable[[Key, BaseException], None] = lambda key, error: None
    on_refused_status: Callable[[Key], None] = lambda key: None
    request: Callable[[Key], None] = lambda key: None
    """The queue's."""
    opt_in: OptIn | None = None
    """None: every namespace is served."""
    unreadable: Unreadable = field(default_factory=Unreadable)
    stored: Stored = field(default_factory=dict)
    """Bytes of every namespace's store, as measured last."""

    def __post_init__(self) -> None:
        self._exists = Existence(self.cluster)
        self._pace = Pace()
        self._networks = networks.known(self.cluster)
        self._stores = StoreReader(self.cluster, self.cache, self.platform, self._read)

    @property
    def _read(self) -> JobReader:
        return JobReader(self.cluster, self.now)

    async def process(self, key: Key) -> float | None:
        """One reconcile of one object; the seconds until it must be looked at again."""
        try:
            return await self._process(key)
        except NamespaceGoneError as error:
            log.debug("%s: its namespace is being deleted: %s", key, error)
            return None

    async def _process(self, key: Key) -> float | None:
        if self.opt_in and (problem := await self.opt_in.problem(key.namespace)):
            return await self._wait_for_namespace(key, problem)
        if key.kind == CONTENTS:
            return await self._look_after_contents(key.namespace)
        if key.kind == UNREADABLE:
            await self._tell_unreadable(key)
            return None
        body = self.cache.get(*key)
        if body is None or self.unreadable.is_unwritable(key.kind, body["metadata"]):
            return None
        try:
            return await self._reconcile(key, body)
        except (ClusterError, aiohttp.ClientError, OSError, TimeoutError):
            raise  # of the API server or the way to it: the queue tries again
        except Exception as error:
            self.on_internal_error(key, error)
            await self._carry_out(key, body, internal_error(body, self.now(), error))
            raise

    async def _look_after_contents(self, namespace: str) -> float | None:
        began = self.now().timestamp()
        if wait := self._pace.left(namespace, began):
            return wait
        try:
            sweeper = Sweeper(self.cluster, self.cache, self.platform, self.now, self.stored)
            return await sweeper.process(namespace)
        finally:
            self._pace.ran(namespace, began, self.now().timestamp())

    async def _reconcile(self, key: Key, body: Mapping[str, Any]) -> float | None:
        started = time.monotonic()
        decide = await DECIDERS[key.kind](self, body)
        outcome = decide(())
        if key.kind == "FineTuneJob" and _begins_work(outcome) and await self._has_finished(body):
            decide = await DECIDERS[key.kind](self, body)
            outcome = decide(())
        refusals = await self._create(key, body, outcome)
        if refusals:
            outcome = decide(refusals)
        await self._carry_out(key, body, outcome)
        if self.on_done:
            self.on_done(key, time.monotonic() - started)
        return outcome.check_again_in

    async def _wait_for_namespace(self, key: Key, problem: Closed) -> float | None:
        """Say in the status why the operator may not work here."""
        if key.kind != CONTENTS and (body := self.cache.get(*key)):
            await self._carry_out(key, body, not_enabled(body, self.now(), problem.message))
        return problem.check_again_in

    # -- observe ---------------------------------------------------------------------------------

    async def _observe_finetunejob(self, body: Mapping[str, Any]) -> "Decide":
        namespace = body["metadata"]["namespace"]
        jobs, stopping = await self._attempts(body)
        report, attempts = self.reports.latest(body["metadata"]["uid"]), of_component(jobs, "training")
        seen = Observed(
            datasets=self._named("Dataset", body, modelref.datasets),
            jobs=jobs,
            report=report,
            claim_exists=await self._model_claim(body),
            upstream=self._upstream(body),
            store=await self._stores.observe(body),
            stopping=stopping,
            network_lost=await networks.is_lost(self._networks, attempts, report),
            network_left=await networks.left(self.cluster, body, attempts),
            made=made_by(body, self.cache.made_by(namespace, body["metadata"]["name"], body["metadata"]["uid"])),
        )
        if any(j.succeeded and is_open(body, j) for j in attempts):
            ledger = await self.cluster.get("ConfigMap", namespace, names.LEDGER)
            seen = replace(seen, ledger=ledger, versions=self.cache.items("ModelVersion", namespace))
        return lambda refusals: finetunejob.reconcile(body, replace(seen, refusals=refusals), self.now(), self.platform)

    async def _attempts(self, body: Mapping[str, Any]) -> tuple[list[ObservedJob], int | None]:
        """Child Jobs, and the pods that are left of the last attempt if somebody has deleted its Job."""
        jobs = await self._jobs(body, lambda job: is_open(body, job))
        training = of_component(jobs, "training")
        if is_true(body, "Finished") or (record := last_open(body, training)) is None:
            return jobs, None
        namespace, name = body["metadata"]["namespace"], record["jobName"]
        # Not on the cache's word: another attempt beside a Job that runs would spoil its checkpoints.
        job = await self.cluster.get("Job", namespace, name)
        if job is not None and caches.controls(body, job) and self.cache.put("Job", job):
            return await self._attempts(body)
        pods = await self.cluster.list("Pod", namespace, labels=f"batch.kubernetes.io/job-name={name}")
        left = [p for p in pods if p["metadata"]["labels"].get(names.COMPONENT) == "training" and _of_job(p, name)]
        return jobs, sum(p["status"].get("phase") not in ("Succeeded", "Failed") for p in left)

    async def _has_finished(self, body: Mapping[str, Any]) -> bool:
        """Whether the API server has a ModelVersion of this run that no watch has brought yet; the cache has it then.

        Asked before anything is begun: what a finished run left would be written again.
        """
        meta = body["metadata"]
        live = await self.cluster.list("ModelVersion", meta["namespace"], labels=f"{names.FINETUNEJOB}={meta['name']}")
        for version in live:
            self._keep("ModelVersion", version)
        return made_by(body, live) is not None

    def _upstream(self, body: Mapping[str, Any]) -> Upstream:
        """The jobs along spec.model.fineTuneJob, and the ModelVersions that this job or the next one up names."""
        namespace, spec = body["metadata"]["namespace"], body["spec"]
        jobs: dict[str, Mapping[str, Any]] = {}
        name = spec["model"].get("fineTuneJob")
        while name and name not in jobs and (job := self.cache.get("FineTuneJob", namespace, name)):
            jobs[name] = job
            name = job["spec"]["model"].get("fineTuneJob")
        made_by = jobs.get(spec["model"].get("fineTuneJob"), {}).get("status") or {}
        named = [spec["model"].get("modelVersion"), made_by.get("modelVersionName"), *modelref.references(spec)]
        found = {n: self.cache.get("ModelVersion", namespace, n) for n in named if n}
        return Upstream(jobs, {n: v for n, v in found.items() if v is not None})

    async def _model_claim(self, body: Mapping[str, Any]) -> bool | None:
        uri = body["spec"]["model"].get("uri", "")
        started = bool((body.get("status") or {}).get("attempts"))
        if not uri.startswith("pvc://") or started or is_true(body, "Finished"):
            return None
        claim = uri.removeprefix("pvc://").partition("/")[0]
        return await self._exists.of_claim(body["metadata"]["namespace"], claim)

    async def _observe_dataset(self, body: Mapping[str, Any]) -> "Decide":
        jobs = await self._jobs(body, lambda job: dataset.is_news(body, job))
        seen = dataset.Observed(
            jobs=jobs,
            missing=await self._missing_source(body, jobs),
            datasets=self._named("Dataset", body, named_datasets),
            versions=self._named("ModelVersion", body, named_versions),
        )
        return lambda refusals: dataset.reconcile(body, replace(seen, refusals=refusals), self.now(), self.platform)

    def _named(
        self, kind: str, body: Mapping[str, Any], names_of: Callable[[Mapping[str, Any]], set[str]]
    ) -> dict[str, Mapping[str, Any]]:
        """The objects of this kind that the spec names, by name; those that do not exist are absent."""
        namespace = body["metadata"]["namespace"]
        found = {name: self.cache.get(kind, namespace, name) for name in names_of(body["spec"])}
        return {name: other for name, other in found.items() if other is not None}

    async def _missing_source(self, body: Mapping[str, Any], jobs: list[ObservedJob]) -> str | None:
        """`kind/name` of a source in the namespace that is not there; asked only when a try is due."""
        uri = (body["spec"].get("source") or {}).get("uri", "")
        if (dataset.is_ready(body) and not body["spec"].get("refresh")) or any(not j.finished for j in jobs):
            return None
        namespace = body["metadata"]["namespace"]
        scheme, _, rest = uri.partition("://")
        name = rest.partition("/")[0]
        if scheme == "configmap" and await self.cluster.get("ConfigMap", namespace, name) is None:
            return f"ConfigMap/{name}"
        if scheme == "pvc" and not await self._exists.of_claim(namespace, name):
            return f"PersistentVolumeClaim/{name}"
        return None

    async def _observe_modelversion(self, body: Mapping[str, Any]) -> "Decide":
        verified = bool((body.get("status") or {}).get("verifiedAt"))
        jobs = await self._jobs(body, lambda job: not verified)
        missing = None
        if not verified and not jobs:
            namespace = body["metadata"]["namespace"]
            for artifact in body["spec"]["artifacts"]:
                scheme, _, rest = artifact["uri"].partition("://")
                claim = rest.partition("/")[0]
                if scheme == "pvc" and not await self._exists.of_claim(namespace, claim):
                    missing = claim
        seen = modelversion.Observed(jobs=jobs, missing_claim=missing)
        return lambda refusals: modelversion.reconcile(
            body, replace(seen, refusals=refusals), self.now(), self.platform
        )

    async def _jobs(self, body: Mapping[str, Any], undigested: Callable[[ObservedJob], bool]) -> list[ObservedJob]:
        """Child Jobs with pods; of those that ended and whose end is news, as the API server has them now."""
        out = []
        for job in self.cache.children(body, "Job"):
            if job["metadata"].get("deletionTimestamp"):
                continue
            seen = ObservedJob(job, self.cache.children(job, "Pod"))
            if seen.finished:
                # Only a FineTuneJob's status has room for the log, which may quote rows.
                with_log = body["kind"] == "FineTuneJob" and self.platform.rows_in_status
                seen = await self._read.ended(seen, with_log) if undigested(seen) else seen
            else:
                seen = await self._read.in_progress(seen)
            out.append(seen)
        return out

    # -- carry out -------------------------------------------------------------------------------

    async def _create(self, key: Key, owner: Mapping[str, Any], outcome: Outcome) -> list[Refusal]:
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
            return Refusal(body["kind"], body["metadata"]["name"], "NameTaken", str(error))

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
            self._keep(kind, made)
        return made

    async def _ensure_store(self, namespace: str) -> None:
        if await self._exists.of_claim(namespace, self.platform.store_claim):
            return
        with contextlib.suppress(AlreadyExistsError):
            await self.cluster.create(store.claim(namespace, self.platform))

    async def _carry_out(self, key: Key, body: Mapping[str, Any], outcome: Outcome) -> None:
        # Before the status: once it says that the attempt has ended, nobody looks for its networks again.
        await self._delete(gone for gone in outcome.delete if gone["kind"] in networks.KINDS)
        for target in outcome.apply:
            made = await self.cluster.apply(target)
            if target["kind"] == "Job":
                self._keep("Job", made)
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
            self._keep(key.kind, made)
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
                self._keep(key.kind, await self.cluster.apply_status(key.kind, body, outcome.status))
                await self._emit(body, outcome)

    def _keep(self, kind: str, made: Mapping[str, Any]) -> None:
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
        self._keep("ModelVersion", made)

    async def _tell_unreadable(self, key: Key) -> None:
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


class NameTakenError(Exception):
    """A foreign object has the name of one of ours."""


Decide = Callable[[Any], Outcome]
DECIDERS: dict[str, Callable[[Controllers, Mapping[str, Any]], Any]] = {
    "FineTuneJob": Controllers._observe_finetunejob,
    "Dataset": Controllers._observe_dataset,
    "ModelVersion": Controllers._observe_modelversion,
}


def _begins_work(outcome: Outcome) -> bool:
    return any(body["kind"] == "Job" for body in outcome.create)


def _of_job(pod: Mapping[str, Any], name: str) -> bool:
    """Whether a Job of this name was the controller of a pod; the Job is gone, and nobody knows its uid any more."""
    owner = caches.owner_of(pod)
    return owner is not None and (owner.api_version, owner.kind, owner.name) == ("batch/v1", "Job", name)
