"""Observe, decide, carry out, for each of the three kinds. The only place where decisions meet I/O."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import aiohttp

from hone_api.states import ConditionType
from hone_operator import cache as caches
from hone_operator import networks
from hone_operator.apply import Writes
from hone_operator.cache import Cache
from hone_operator.cluster import (
    Cluster,
    ClusterError,
    NamespaceGoneError,
)
from hone_operator.desired import modelref, names
from hone_operator.desired.materialize import named_datasets, named_versions
from hone_operator.desired.platform import Platform
from hone_operator.desired.shared import Shared
from hone_operator.existence import Existence
from hone_operator.jobs import JobReader
from hone_operator.networkpatrol import Attempt
from hone_operator.optin import Closed, OptIn
from hone_operator.pace import Pace
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile import dataset, earlier, finetunejob, modelversion
from hone_operator.reconcile.attempts import is_open, last_open
from hone_operator.reconcile.conditions import is_true
from hone_operator.reconcile.draft import JobDraft
from hone_operator.reconcile.earlier import made_by
from hone_operator.reconcile.encoding import Encoder
from hone_operator.reconcile.ending import recorded
from hone_operator.reconcile.notenabled import not_enabled
from hone_operator.reconcile.notreconciled import internal_error
from hone_operator.reconcile.observed import Observed, of_component
from hone_operator.reconcile.outcome import Outcome
from hone_operator.reconcile.pods import ObservedJob
from hone_operator.reconcile.upstream import Upstream
from hone_operator.routing import CONTENTS, Key
from hone_operator.stores import StoreReader
from hone_operator.sweeping import Claims, Stored, Sweeper, note_gone
from hone_operator.unreadable import UNREADABLE, Unreadable

log = logging.getLogger(__name__)


class Reports(Protocol):
    """The progress server's store."""

    def latest(self, job_uid: str) -> Latest | None: ...


class Left(NamedTuple):
    """Names of the pods of a Job that is gone."""

    stopping: Sequence[str]
    stranded: Sequence[str]
    """Pods that can never start."""


class NoReports:
    """Used if pods do not report."""

    def latest(self, job_uid: str) -> Latest | None:
        return None


@dataclass
class Controllers:
    """Processes one key: the queue's `process`."""

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
    """Bytes of every namespace's store, as last measured."""
    departed: dict[str, Claims] = field(default_factory=dict)
    """What deleted ModelVersions said about their models, by namespace, until the ledger has it."""

    def __post_init__(self) -> None:
        self._exists = Existence(self.cluster)
        self._pace = Pace()
        self._networks = networks.known(self.cluster)
        self._stores = StoreReader(self.cluster, self.cache, self.platform, self._read)

    @property
    def _writes(self) -> Writes:
        """A writer with the current callbacks, which whoever creates the controllers sets later."""
        return Writes(
            cluster=self.cluster,
            cache=self.cache,
            platform=self.platform,
            exists=self._exists,
            unreadable=self.unreadable,
            now=self.now,
            request=self.request,
            on_refused_status=self.on_refused_status,
        )

    @property
    def _read(self) -> JobReader:
        return JobReader(self.cluster, self.now)

    def gone(self, kind: str, body: Mapping[str, Any]) -> None:
        """An object of ours was deleted."""
        note_gone(self.departed, kind, body, self.platform.store_claim)

    def network_lost(self, attempt: Attempt) -> None:
        """The Service or NetworkPolicy of a running attempt seems to be gone."""
        networks.forget(self._networks, attempt.namespace, attempt.name)
        self.request(attempt.job)

    async def process(self, key: Key) -> float | None:
        """One reconcile of one object; returns the seconds until the next, or None."""
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
            await self._writes.tell_unreadable(key)
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
            await self._writes.carry_out(key, body, internal_error(body, self.now(), error))
            raise

    async def _look_after_contents(self, namespace: str) -> float | None:
        began = self.now().timestamp()
        if wait := self._pace.left(namespace, began):
            return wait
        try:
            sweeper = Sweeper(self.cluster, self.cache, self.platform, self.now, self.stored, self.departed)
            return await sweeper.process(namespace)
        finally:
            self._pace.ran(namespace, began, self.now().timestamp())

    async def _reconcile(self, key: Key, body: Mapping[str, Any]) -> float | None:
        started = time.monotonic()
        decide = await DECIDERS[key.kind](self, body)
        outcome = decide(())
        if key.kind == "FineTuneJob" and _begins_work(outcome):
            if await self._has_finished(body):
                decide = await DECIDERS[key.kind](self, body)
                outcome = decide(())
            else:
                outcome = await self._failed_before(body) or outcome
        refusals = await self._writes.create(key, outcome)
        if refusals:
            outcome = decide(refusals)
        await self._writes.carry_out(key, body, outcome)
        if self.on_done:
            self.on_done(key, time.monotonic() - started)
        return outcome.check_again_in

    async def _wait_for_namespace(self, key: Key, problem: Closed) -> float | None:
        """Say in the status why the operator may not work here."""
        if key.kind != CONTENTS and (body := self.cache.get(*key)):
            await self._writes.carry_out(key, body, not_enabled(body, self.now(), problem.message))
        return problem.check_again_in

    # -- observe ---------------------------------------------------------------------------------

    async def _observe_finetunejob(self, body: Mapping[str, Any]) -> "Decide":
        namespace = body["metadata"]["namespace"]
        jobs, left = await self._attempts(body)
        report, attempts = self.reports.latest(body["metadata"]["uid"]), of_component(jobs, "training")
        seen = Observed(
            datasets=self._named("Dataset", body, modelref.datasets),
            jobs=jobs,
            report=report,
            claim_exists=await self._model_claim(body),
            upstream=self._upstream(body),
            store=await self._stores.observe(body),
            stopping=None if left is None else len(left.stopping),
            stranded=left.stranded if left else (),
            network_lost=await networks.is_lost(self._networks, attempts, report),
            network_left=await networks.left(self.cluster, body, attempts),
            made=made_by(body, self.cache.made_by(namespace, body["metadata"]["name"], body["metadata"]["uid"])),
        )
        if any(j.succeeded and is_open(body, j) for j in attempts):
            ledger = await self.cluster.get("ConfigMap", namespace, names.LEDGER)
            seen = replace(seen, ledger=ledger, versions=self.cache.items("ModelVersion", namespace))
        if work := finetunejob.reconcile(body, seen, self.now(), self.platform).look:
            seen = replace(seen, encoder=await self._encoder(namespace, work))
        return lambda refusals: finetunejob.reconcile(body, replace(seen, refusals=refusals), self.now(), self.platform)

    async def _encoder(self, namespace: str, work: Shared) -> Encoder:
        """The shared Job that encodes the rows of a FineTuneJob, and what its pod reports."""
        stage = await self._stores.stage(namespace, [work])
        uids = [job.body["metadata"]["uid"] for job in stage.jobs if not job.finished]
        return Encoder(stage, next(filter(None, map(self.reports.latest, uids)), None))

    async def _attempts(self, body: Mapping[str, Any]) -> tuple[list[ObservedJob], "Left | None"]:
        """Child Jobs, and the remaining pods of the last attempt if somebody deleted its Job."""
        jobs = await self._jobs(body, lambda job: is_open(body, job))
        training = of_component(jobs, "training")
        if is_true(body, ConditionType.FINISHED) or (record := last_open(body, training)) is None:
            return jobs, None
        namespace, name = body["metadata"]["namespace"], record["jobName"]
        # Not trusting the cache: another attempt next to a running Job would spoil its checkpoints.
        job = await self.cluster.get("Job", namespace, name)
        if job is not None and caches.controls(body, job) and self.cache.put("Job", job):
            return await self._attempts(body)
        pods = await self.cluster.list("Pod", namespace, labels=f"batch.kubernetes.io/job-name={name}")
        pods = [p for p in pods if p["metadata"]["labels"].get(names.COMPONENT) == "training" and _of_job(p, name)]
        left = [p for p in pods if p["status"].get("phase") not in ("Succeeded", "Failed")]
        stranded = [p["metadata"]["name"] for p in left if await self._read.never_starts(p)]
        return jobs, Left([n for p in left if (n := p["metadata"]["name"]) not in stranded], stranded)

    async def _has_finished(self, body: Mapping[str, Any]) -> bool:
        """Whether the API server has a ModelVersion of this run that no watch has delivered yet; if so, it is cached.

        Checked before anything is started: otherwise the results of a finished run would be written again.
        """
        meta = body["metadata"]
        live = await self.cluster.list("ModelVersion", meta["namespace"], labels=f"{names.FINETUNEJOB}={meta['name']}")
        for version in live:
            self._writes.keep("ModelVersion", version)
        return made_by(body, live) is not None

    async def _failed_before(self, body: Mapping[str, Any]) -> Outcome | None:
        """The end of a failed run of which only the record is left; None if there is none."""
        meta = body["metadata"]
        config_map = await self.cluster.get("ConfigMap", meta["namespace"], names.ended(meta["name"], meta["uid"]))
        if config_map is None or not caches.controls(body, config_map) or (cause := recorded(config_map)) is None:
            return None
        unfinished = [j.body for j in await self._jobs(body, lambda _: False) if not j.finished]
        ended_at = config_map["metadata"]["creationTimestamp"]
        return earlier.restore_failure(JobDraft(body, self.now()), cause, ended_at, unfinished)

    def _upstream(self, body: Mapping[str, Any]) -> Upstream:
        """The jobs along spec.model.fineTuneJob, and the ModelVersions that this job or its parent refers to."""
        namespace, spec = body["metadata"]["namespace"], body["spec"]
        jobs: dict[str, Mapping[str, Any]] = {}
        name = spec["model"].get("fineTuneJob")
        while name and name not in jobs and (job := self.cache.get("FineTuneJob", namespace, name)):
            jobs[name] = job
            name = job["spec"]["model"].get("fineTuneJob")
        made_by = jobs.get(spec["model"].get("fineTuneJob"), {}).get("status") or {}
        named = [spec["model"].get("modelVersion"), made_by.get("modelVersionName"), *modelref.references(spec)]
        version_bodies = {n: self.cache.get("ModelVersion", namespace, n) for n in named if n}
        return Upstream(jobs, {n: v for n, v in version_bodies.items() if v is not None})

    async def _model_claim(self, body: Mapping[str, Any]) -> bool | None:
        uri = body["spec"]["model"].get("uri", "")
        started = bool((body.get("status") or {}).get("attempts"))
        if not uri.startswith("pvc://") or started or is_true(body, ConditionType.FINISHED):
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
        """The objects of this kind that the spec refers to, by name; those that do not exist are absent."""
        namespace = body["metadata"]["namespace"]
        by_name = {name: self.cache.get(kind, namespace, name) for name in names_of(body["spec"])}
        return {name: other for name, other in by_name.items() if other is not None}

    async def _missing_source(self, body: Mapping[str, Any], jobs: list[ObservedJob]) -> str | None:
        """`kind/name` of a source in the namespace that does not exist; looked up only when an attempt is due."""
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
        """Child Jobs with pods; for Jobs that ended unnoticed, the pods as the API server has them at present."""
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


Decide = Callable[[Any], Outcome]
DECIDERS: dict[str, Callable[[Controllers, Mapping[str, Any]], Awaitable[Decide]]] = {
    "FineTuneJob": Controllers._observe_finetunejob,
    "Dataset": Controllers._observe_dataset,
    "ModelVersion": Controllers._observe_modelversion,
}


def _begins_work(outcome: Outcome) -> bool:
    return any(body["kind"] == "Job" for body in outcome.create)


def _of_job(pod: Mapping[str, Any], name: str) -> bool:
    """Whether a Job with this name was the controller of a pod; the Job is gone, so its uid is unknown."""
    owner = caches.owner_of(pod)
    return owner is not None and (owner.api_version, owner.kind, owner.name) == ("batch/v1", "Job", name)
