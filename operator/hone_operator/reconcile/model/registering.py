"""spec.registry of a Model: one Job at a time registers versions and sets aliases. Pure.

There is one Job for a Model, and not one for each version: of two that run at a time, the slower one could set an alias
back.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from hone_api.base.wording import counted, listed
from hone_api.blocks.tracking import MAX_REGISTERED, MlflowRegistry, RegisteredAlias, RegistryStatus
from hone_api.contract.report import MAX_AT_ONCE, RegisterResult
from hone_api.kinds.model import ModelSpec
from hone_api.words.states import AnyReason, ConditionType, Quoted, Reason
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.model.register import COMPONENT, Registration, as_registered, place_key, register, source_of
from hone_operator.reconcile.core import bounds
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.reconcile.core.outcome_builder import ModelBuilder, as_json
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.model import aliases
from hone_operator.reconcile.staging.entry_jobs import (
    EntryJobs,
    EntryMemory,
    EntryObstacle,
    EntryStage,
    with_retry,
    without_retry,
)
from hone_operator.reconcile.staging.observed import of_component
from hone_operator.reconcile.staging.staging_attempts import StagingAttempts, observe_attempts

Body = Mapping[str, Any]
REGISTERED = ConditionType.REGISTERED


@dataclass(frozen=True)
class ObservedForRegistry:
    """What spec.registry depends on."""

    platform: Platform | None = None
    """None: without spec.registry."""
    jobs: Sequence[ObservedJob] = ()
    refusals: Sequence[Refusal] = ()


def decide_registration(
    builder: ModelBuilder, spec: ModelSpec, versions: Mapping[int, Body], seen: ObservedForRegistry
) -> None:
    """The next step of the registry; sets status.registry and condition Registered.

    Args:
        versions: ModelVersions of the Model, by number.
    """
    own = of_component(seen.jobs, COMPONENT)
    if spec.registry is None or seen.platform is None:
        builder.delete += [job.body for job in own]
        builder.put(registry=None)
        return
    _Step(builder, spec, spec.registry.mlflow, versions, seen.platform, seen.refusals).run(own)


@dataclass(frozen=True)
class _Step:
    """One decision about one registry."""

    builder: ModelBuilder
    spec: ModelSpec
    registry: MlflowRegistry
    versions: Mapping[int, Body]
    platform: Platform
    refusals: Sequence[Refusal]

    @property
    def name(self) -> str:
        """Of the registered model."""
        return self.registry.name or str(self.builder.body["metadata"]["name"])

    def run(self, jobs: Sequence[ObservedJob]) -> None:
        here = place_key(self.registry, self.name)
        others = [j for j in jobs if not _content(j).startswith(here)]
        self.builder.delete += [job.body for job in others]  # what they wrote is not in this registry
        jobs = [job for job in jobs if job not in others]
        attempts, status = observe_attempts(jobs), self._before()
        if result := attempts.result_of(RegisterResult):
            status = _with_result(status, result)
            self.builder.delete += [job.body for job in jobs]
            attempts = observe_attempts(())
        self.builder.put(registry=as_json(status))
        work = self._work(status)
        if work is None and not attempts.active:
            self.builder.delete += [job.body for job in jobs]
            self._done(status)
            return
        if attempts.job and not attempts.active and (work is None or _content(attempts.job) != work.key):
            attempts = StagingAttempts(0, None, [job.body for job in jobs])  # it was about something else
        entry_work = _RegistryWork(self, work)
        now = EntryJobs(self.builder, entry_work, self.platform.trainer.start_timeout_seconds, self.refusals).step(
            attempts, self._memory(attempts)
        )
        given_up = now.stage is EntryStage.FAILED and attempts.job is not None and not attempts.active
        self._missing(now.reason, with_retry(now.message, self.builder) if given_up else now.message)

    def _memory(self, attempts: StagingAttempts) -> EntryMemory:
        """Of the failure that the condition reports, if it does, while its Job or the next one exists."""
        before = self.builder.conditions.before(REGISTERED)
        if attempts.job is None or not self.builder.conditions.failed_before(REGISTERED):
            return EntryMemory()
        message = without_retry(before.get("message", ""), self.builder)
        return EntryMemory(failed=message != before.get("message"), reason=Quoted(before["reason"]), message=message)

    def _before(self) -> RegistryStatus:
        """What is known of this registered model; nothing of another one. Registering again changes nothing there."""
        old: Any = self.builder.old.get("registry") or {}
        if (old.get("uri"), old.get("name")) == (self.registry.uri, self.name):
            with suppress(ValidationError):  # somebody has written into it
                return RegistryStatus.model_validate(old)
        return RegistryStatus(uri=self.registry.uri, name=self.name)

    def _work(self, status: RegistryStatus) -> Registration | None:
        """What the registry lacks; None: nothing that can be registered now."""
        registered = {entry.version for entry in status.versions}
        newest = sorted(self.versions)[-MAX_REGISTERED:]
        sources = {n: source for n in newest if (source := self._source(n))}
        batch = [n for n in sources if n not in registered][:MAX_AT_ONCE]
        pointing: Any = self.builder.status.get("aliases") or ()
        wanted = [RegisteredAlias(name=a["name"], version=a["version"], since=a["since"]) for a in pointing]
        registrable = sources.keys() & {*registered, *batch}
        changed = [a for a in wanted if a.version in registrable and a not in status.aliases][:MAX_AT_ONCE]
        lost = sorted({a.name for a in status.aliases} - {a.name for a in wanted})[:MAX_AT_ONCE]
        if not batch and not changed and not lost:
            return None
        needed = sorted({*batch, *(alias.version for alias in changed)})
        entries = [as_registered(self.versions[n], sources[n], self.registry) for n in needed]
        return Registration(self.registry, self.name, entries, changed, lost)

    def _source(self, number: int) -> str | None:
        version = self.versions[number]
        return None if aliases.unusable(number, version) else source_of(version, bool(self.spec.deliveries))

    def _missing(self, reason: AnyReason, message: str) -> None:
        self.builder.conditions.set(REGISTERED, False, reason, message)
        if reason != Reason.REGISTERING:
            self.builder.add_event_if_changed(REGISTERED, warning=True)

    def _done(self, status: RegistryStatus) -> None:
        registered = {entry.version for entry in status.versions}
        pending = [a["name"] for a in self.builder.status.get("aliases") or () if a["version"] not in registered]
        if pending:
            words = f"Not registered yet are the versions of {listed(pending)}"
            words += ": each waits for its delivery, which may wait for approval."
            self._missing(Reason.WAITING, words)
            return
        waiting = [n for n in sorted(self.versions)[-MAX_REGISTERED:] if n not in registered]
        words = f"{counted(len(status.versions), 'version')} and {counted(len(status.aliases), 'alias', 'aliases')}"
        more = f" {counted(len(waiting), 'version is', 'versions are')} not yet Ready, or not yet delivered."
        self.builder.conditions.set(
            REGISTERED, True, Reason.REGISTERED, f"{self.place()} has {words}.{more if waiting else ''}"
        )
        self.builder.add_event_if_changed(REGISTERED)

    def place(self) -> str:
        """The registered model and its server, for messages."""
        return f"{self.name} at {self.registry.uri.split('/')[2]}"  # perhaps no valid host: the Job says so


@dataclass(frozen=True)
class _RegistryWork:
    """The next Job of a registry, as the attempts at it need it."""

    decision: _Step
    work: Registration | None
    """None: a Job is at work, and then nothing is left to do."""

    @property
    def working(self) -> tuple[AnyReason, str]:
        """Reason and message while a Job works."""
        return Reason.REGISTERING, f"A Job changes {self.decision.place()}."

    def obstacles(self) -> Iterator[EntryObstacle]:
        """What must change before a Job can begin."""
        for words in bounds.registry(self.decision.registry, self.decision.platform.tenants):
            yield EntryObstacle(bounds.CODE, words)

    def objects(self, number: int) -> list[dict[str, Any]]:
        """The Job of attempt `number`, and what it needs."""
        return register(self.decision.builder.body, self.work, number, self.decision.platform) if self.work else []


def _content(job: ObservedJob) -> str:
    return str(job.body["metadata"]["labels"].get(names.CONTENT, ""))


def _with_result(status: RegistryStatus, result: RegisterResult) -> RegistryStatus:
    """The status after a Job that ended well."""
    versions = {entry.version: entry for entry in (*status.versions, *result.versions)}
    now = {alias.name: alias for alias in (*status.aliases, *result.aliases) if alias.name not in result.removed}
    newest = [versions[number] for number in sorted(versions)[-MAX_REGISTERED:]]
    return status.model_copy(update={"versions": newest, "aliases": [now[name] for name in sorted(now)]})
