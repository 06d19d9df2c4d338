"""Observe, decide, carry out, for each kind. The only place where decisions meet I/O."""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import aiohttp

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import ClusterError, NamespaceGoneError
from hone_operator.apiserver.existence import Existence
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.shared import Shared
from hone_operator.namespaces import networks
from hone_operator.namespaces.handover import Handover, Holds
from hone_operator.namespaces.networkpatrol import NetworkedJob
from hone_operator.namespaces.optin import Closed, OptedInNamespaces
from hone_operator.objects import cache as caches
from hone_operator.objects.cache import Cache
from hone_operator.observe.children import Children
from hone_operator.observe.dataset import DatasetReader
from hone_operator.observe.finetunejob import FineTuneJobReader, Reports
from hone_operator.observe.model import ModelReader
from hone_operator.observe.modelversion import ModelVersionReader
from hone_operator.observe.stores import StoreReader
from hone_operator.progress.numbers import Latest
from hone_operator.queueing.pace import Pace
from hone_operator.queueing.routing import CONTENTS, SERVED, Key, Request, served_key
from hone_operator.reconcile.core import line
from hone_operator.reconcile.core.notenabled import not_enabled
from hone_operator.reconcile.core.notreconciled import api_server_error, internal_error
from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.core.outcome_builder import JobBuilder
from hone_operator.reconcile.dataset import dataset
from hone_operator.reconcile.dataset.dataset import ObservedForDataset
from hone_operator.reconcile.model import model
from hone_operator.reconcile.model.model import ObservedForModel
from hone_operator.reconcile.run import earlier, finetunejob
from hone_operator.reconcile.run.earlier import version_of_run
from hone_operator.reconcile.run.terminal import read_cause
from hone_operator.reconcile.staging.observed import Observed
from hone_operator.reconcile.version import modelversion
from hone_operator.reconcile.version.modelversion import ObservedForModelVersion
from hone_operator.storage.sweeping import Claims, Stored, Sweeper, note_gone
from hone_operator.writing.apply import Writes
from hone_operator.writing.contested import Contested
from hone_operator.writing.unreadable import UNREADABLE, Unreadable

log = logging.getLogger(__name__)


class NoReports:
    """Used if pods do not report."""

    def latest(self, job_uid: str) -> Latest | None:
        return None

    def due(self, job_uid: str) -> Latest | None:
        return None


Decide = Callable[[Sequence[Refusal]], Outcome]
"""A decision, given what the API server refused when it was carried out a moment ago."""


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
    request: Request = lambda key, after=0.0: None
    """The queue's."""
    opt_in: OptedInNamespaces | None = None
    """None: every namespace is served."""
    unreadable: Unreadable = field(default_factory=Unreadable)
    holds: Holds = field(default_factory=Holds)
    stored: Stored = field(default_factory=dict)
    """Bytes of every namespace's store, as last measured."""
    departed: dict[str, Claims] = field(default_factory=dict)
    """What deleted ModelVersions said about their models, by namespace, until the ledger has it."""

    def __post_init__(self) -> None:
        self._exists = Existence(self.cluster)
        self._pace = Pace()
        self._contested = Contested()
        self._starting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By namespace: held while a job takes a place in it."""
        self._offering: set[tuple[str, str, str]] = set()
        self._failing: set[Key] = set()
        """Objects whose last run ended by an error of the API server."""
        self._networks = networks.existence_cache(self.cluster)
        self._stores = StoreReader(self.cluster, self.cache, self.platform, self._children.read)

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
            contested=self._contested,
            offering=self._offering,
        )

    @property
    def _children(self) -> Children:
        return Children(self.cluster, self.cache, self.platform, self.now)

    async def _observe(self, kind: str, body: Mapping[str, Any], look: Shared | None = None) -> Decide:
        """Read what the decision depends on, and the shared work `look`, which an earlier decision asked for.

        The returned function decides, given what the API server refused.
        """
        record = _KINDS[kind]
        seen = await record.observe(self, body, look)
        return lambda refused: record.decide(body, seen, refused, self.now(), self.platform)

    async def _observe_job(self, body: Mapping[str, Any], look: Shared | None) -> Observed:
        reader = FineTuneJobReader(self._children, self._exists, self._stores, self._networks, self.reports)
        job = await reader.observe(body)
        return replace(job, encoder=await reader.encoder(body["metadata"]["namespace"], look)) if look else job

    async def _observe_dataset(self, body: Mapping[str, Any], _: Shared | None) -> ObservedForDataset:
        return await DatasetReader(self._children, self._exists).observe(body)

    async def _observe_model(self, body: Mapping[str, Any], _: Shared | None) -> ObservedForModel:
        seen = await ModelReader(self._children, self._exists).observe(body)
        return replace(seen, not_handed_over=self.holds.refused.get(body["metadata"]["namespace"], ""))

    async def _observe_version(self, body: Mapping[str, Any], _: Shared | None) -> ObservedForModelVersion:
        return await ModelVersionReader(self._children, self._exists, self.reports).observe(body)

    def gone(self, kind: str, body: Mapping[str, Any]) -> None:
        """An object of ours was deleted."""
        note_gone(self.departed, kind, body, self.platform.store.claim_name)
        self._contested.gone(body["metadata"]["uid"])
        namespace = body["metadata"]["namespace"]
        if not any(self.cache.items(kind, namespace) for kind in names.OWNER_LABEL):
            self._stores.forget(namespace)
            if namespace in self._starting and not self._starting[namespace].locked():
                del self._starting[namespace]

    def network_lost(self, attempt: NetworkedJob) -> None:
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
        except Exception:
            if key.kind == "Model" and self.holds.give_up(key.namespace, key.name):
                self.request(served_key(key.namespace))  # its aliases stay where they are; a withdrawn version must not
            raise

    async def _process(self, key: Key) -> float | None:
        if self.opt_in and (problem := await self.opt_in.problem(key.namespace)):
            return await self._wait_for_namespace(key, problem)
        if key.kind == CONTENTS:
            return await self._look_after_contents(key.namespace)
        if key.kind == SERVED:
            before = self.holds.refused.get(key.namespace)
            again = await Handover(self.cluster, self.cache, self.holds).process(key.namespace)
            if self.holds.refused.get(key.namespace) != before:
                for each in self.cache.items("Model", key.namespace):
                    self.request(Key("Model", key.namespace, each["metadata"]["name"]))
            return again
        if key.kind == UNREADABLE:
            await self._writes.report_unreadable(key)
            return None
        body = self.cache.get(*key)
        if body is None:
            self._failing.discard(key)
        if body is None or self.unreadable.is_unwritable(key.kind, body["metadata"]):
            return None
        try:
            again = await self._reconcile(key, body)
            self._failing.discard(key)
            return again
        except ClusterError as error:
            await self._show_failing(key, body, error)
            raise  # the queue tries again, as with the next
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise  # of the way to the API server
        except Exception as error:
            self.on_internal_error(key, error)
            await self._writes.carry_out(key, body, internal_error(body, self.now(), error))
            raise

    async def _show_failing(self, key: Key, body: Mapping[str, Any], error: ClusterError) -> None:
        """Show the second error of the API server in a row: an admission webhook that is down lets a status pass."""
        if error.status < 500:
            return
        if key in self._failing:
            with contextlib.suppress(ClusterError, aiohttp.ClientError, OSError, TimeoutError):
                await self._writes.carry_out(key, body, api_server_error(body, self.now(), error.message))
        self._failing.add(key)

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
        decide, outcome = await self._decided(key.kind, body)
        if self.platform.tenants.max_active_jobs and line.starts_training(outcome.create, outcome.apply):
            async with self._starting[key.namespace]:  # two jobs must not take the last place
                outcome = await self._carry_out(key, body, *await self._decided(key.kind, body))
        else:
            outcome = await self._carry_out(key, body, decide, outcome)
        if self.on_done:
            self.on_done(key, time.monotonic() - started)
        return outcome.check_again_in

    async def _carry_out(self, key: Key, body: Mapping[str, Any], decide: Decide, outcome: Outcome) -> Outcome:
        """Write what was decided; the decision, as it was changed by what the API server has or refuses."""
        if key.kind == "FineTuneJob" and _begins_work(outcome):
            has_finished, failed = await asyncio.gather(self._has_finished(body), self._failed_before(body))
            if has_finished:
                decide, outcome = await self._decided(key.kind, body)
            else:
                outcome = failed or outcome
        refusals = await self._writes.create(key, outcome)
        if refusals:
            outcome = decide(refusals)
        pause = await self._writes.carry_out(key, body, outcome)
        return replace(outcome, check_again_in=pause) if pause else outcome

    async def _decided(self, kind: str, body: Mapping[str, Any]) -> tuple[Decide, Outcome]:
        """How to decide, and what was decided if the API server refuses nothing."""
        decide = await self._observe(kind, body)
        outcome = decide(())
        if outcome.look:
            decide = await self._observe(kind, body, outcome.look)
            outcome = decide(())
        return decide, outcome

    async def _wait_for_namespace(self, key: Key, problem: Closed) -> float | None:
        """Say in the status why the operator may not work here."""
        if key.kind not in (CONTENTS, SERVED) and (body := self.cache.get(*key)):
            await self._writes.carry_out(key, body, not_enabled(body, self.now(), problem.message))
        return problem.check_again_in

    async def _has_finished(self, body: Mapping[str, Any]) -> bool:
        """Whether the API server has a ModelVersion of this run that no watch has delivered yet; if so, it is cached.

        Checked before anything is started: otherwise the results of a finished run would be written again.
        """
        meta = body["metadata"]
        live = await self.cluster.list("ModelVersion", meta["namespace"], labels=f"{names.FINETUNEJOB}={meta['name']}")
        for version in live:
            self._writes.keep("ModelVersion", version)
        return version_of_run(body, live) is not None or earlier.differs(body, live) is not None

    async def _failed_before(self, body: Mapping[str, Any]) -> Outcome | None:
        """The end of a failed run if only its record is left; None if there is none."""
        meta = body["metadata"]
        config_map = await self.cluster.get("ConfigMap", meta["namespace"], names.ended(meta["name"], meta["uid"]))
        if config_map is None or not caches.controls(body, config_map) or (cause := read_cause(config_map)) is None:
            return None
        unfinished = [j.body for j in await self._children.jobs(body, lambda _: False) if not j.finished]
        ended_at = config_map["metadata"]["creationTimestamp"]
        return earlier.restore_failure(JobBuilder(body, self.now()), cause, ended_at, unfinished)


@dataclass(frozen=True)
class _Kind:
    """How an object of a kind is observed and decided."""

    observe: Callable[[Controllers, Mapping[str, Any], Shared | None], Awaitable[Any]]
    decide: Callable[[Mapping[str, Any], Any, Sequence[Refusal], datetime, Platform], Outcome]


def _deciding(of_kind: ModuleType) -> Callable[..., Outcome]:
    return lambda body, seen, refused, now, platform: of_kind.reconcile(
        body, replace(seen, refusals=refused), now, platform
    )


_KINDS = {
    "FineTuneJob": _Kind(Controllers._observe_job, _deciding(finetunejob)),
    "Dataset": _Kind(Controllers._observe_dataset, _deciding(dataset)),
    "Model": _Kind(
        Controllers._observe_model,
        lambda body, seen, refused, now, _: model.reconcile(body, seen.after(refused), now),
    ),
    "ModelVersion": _Kind(Controllers._observe_version, _deciding(modelversion)),
}


def _begins_work(outcome: Outcome) -> bool:
    return any(body["kind"] == "Job" for body in outcome.create)
