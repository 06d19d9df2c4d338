"""spec.imports of a Model: one Job for each attempt at each entry, then a ModelVersion. Pure.

The status remembers what was imported, so a version that was deleted is not imported again. If the status is lost, the
ModelVersion's lineage has the key of its entry.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hone_api.blocks.imports import ModelImport
from hone_api.contract.report import ImportResult
from hone_api.kinds.model import ImportStatus, ModelSpec
from hone_api.words.failures import FailureCode
from hone_api.words.states import AnyReason, ConditionType, ImportState, Reason
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.model.importing import COMPONENT, claims, imported_version, importing, key_of, rows_of
from hone_operator.desired.version.model_version import allocate, last_of
from hone_operator.reconcile.core import bounds
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.reconcile.core.outcome_builder import ModelBuilder, as_json
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.staging import inputs
from hone_operator.reconcile.staging.entry_jobs import (
    MAX_MESSAGE,
    RECHECK_SECONDS,
    EntryJobs,
    EntryMemory,
    EntryObstacle,
    EntryStage,
    set_condition,
)
from hone_operator.reconcile.staging.observed import of_component
from hone_operator.reconcile.staging.staging_attempts import observe_attempts

Body = Mapping[str, Any]
STATES = {
    EntryStage.PENDING: ImportState.PENDING,
    EntryStage.WORKING: ImportState.IMPORTING,
    EntryStage.FAILED: ImportState.FAILED,
}


@dataclass(frozen=True)
class ObservedForImports:
    """What spec.imports depends on."""

    platform: Platform | None = None
    """None: without spec.imports."""
    jobs: Sequence[ObservedJob] = ()
    missing_claims: frozenset[str] = frozenset()
    """Claims that are named and do not exist."""
    datasets: Mapping[str, Body] = field(default_factory=dict)
    """The existing ones of those that evaluations name."""
    ledger: Body | None = None
    """Of version numbers; read only if an import has just ended."""
    refusals: Sequence[Refusal] = ()


def decide_imports(builder: ModelBuilder, spec: ModelSpec, versions: Sequence[Body], seen: ObservedForImports) -> None:
    """The next step of each import; sets status.imports and condition Imported."""
    jobs, states = of_component(seen.jobs, COMPONENT), []
    if seen.platform is not None:
        before = {entry["key"]: entry for entry in builder.old.get("imports") or ()}
        by_key = {key: version for version in versions if (key := _key(version))}
        for entry in spec.imports or ():
            key = key_of(builder.body["metadata"]["name"], entry)
            own = [job for job in jobs if _content(job) == key]
            one = _ImportWork(builder, entry, key, versions, seen, seen.platform)
            states.append(one.known(own, before.get(key), by_key.get(key)) or one.step(own, before.get(key)))
    keys = {state.key for state in states}
    builder.delete += [job.body for job in jobs if _content(job) not in keys]
    builder.put(imports=[as_json(state) for state in states] or None)
    summary = f"Imported as {', '.join(state.model_version or state.uri for state in states)}."
    set_condition(builder, ConditionType.IMPORTED, states, Reason.IMPORTING, Reason.IMPORTED, summary)


def _key(version: Body) -> str | None:
    """Of the import that made a ModelVersion."""
    key: str | None = ((version["spec"].get("lineage") or {}).get("imported") or {}).get("key")
    return key


def _content(job: ObservedJob) -> str | None:
    content: str | None = job.body["metadata"]["labels"].get(names.CONTENT)
    return content


@dataclass(frozen=True)
class _ImportWork:
    """The import of one entry, as the attempts at it need it."""

    builder: ModelBuilder
    entry: ModelImport
    key: str
    versions: Sequence[Body]
    seen: ObservedForImports
    platform: Platform
    working = (Reason.IMPORTING, "The files are being read and checked.")

    def known(self, jobs: Sequence[ObservedJob], old: Any, version: Body | None) -> ImportStatus | None:
        """Its state if it is a version already, or was one."""
        if not version and not (old and old["state"] == ImportState.IMPORTED):
            return None
        self.builder.delete += [job.body for job in jobs]  # the ModelVersion has all they say
        if old and old["state"] == ImportState.IMPORTED:
            return ImportStatus.model_validate(old)
        assert version is not None
        at = version["spec"]["lineage"].get("finishedAt")
        return self._state(ImportState.IMPORTED, None, None).model_copy(
            update={"model_version": version["metadata"]["name"], "imported_at": at}
        )

    def step(self, jobs: Sequence[ObservedJob], old: Any) -> ImportStatus:
        """Its state, after its next Job was requested if one is due."""
        attempts, before = observe_attempts(jobs), EntryMemory.of(old)
        number = max(attempts.number, before.number)
        if (result := attempts.result_of(ImportResult)) and attempts.job:
            return self._imported(result, attempts.job, number)
        try:
            claims(self.entry)
        except names.InvalidReferenceError as error:
            return self._state(ImportState.FAILED, FailureCode.INVALID_VALUE, str(error), number)
        entry_jobs = EntryJobs(self.builder, self, self.platform.trainer.start_timeout_seconds, self.seen.refusals)
        now = entry_jobs.step(attempts, before)
        return self._state(STATES[now.stage], now.reason, now.message, now.number)

    def obstacles(self) -> Iterator[EntryObstacle]:
        """What must change before a Job can begin."""
        for words in bounds.import_problems(self.entry, self.platform.tenants):
            yield EntryObstacle(bounds.CODE, words)
        for claim in claims(self.entry):
            if claim in self.seen.missing_claims:
                words = f"PersistentVolumeClaim {claim} does not exist in this namespace."
                yield EntryObstacle(Reason.PVC_NOT_FOUND, words, RECHECK_SECONDS)
        evaluation = self.entry.evaluation
        if evaluation and (
            problem := inputs.dataset_problem(evaluation.dataset, inputs.VALIDATION, self.seen.datasets)
        ):
            yield EntryObstacle(*problem)

    def objects(self, number: int) -> list[dict[str, Any]]:
        """The Job of attempt `number`, and what it needs."""
        evaluation = self.entry.evaluation
        rows = rows_of(self.seen.datasets[evaluation.dataset]) if evaluation else None
        return importing(self.builder.body, self.entry, number, self.platform, rows)

    def _imported(self, result: ImportResult, job: ObservedJob, number: int) -> ImportStatus:
        """The record of the files; one in a decision, because each needs a number of its own."""
        if self.builder.record:
            self.builder.check_in(0)
            return self._state(ImportState.IMPORTING, *self.working, number)
        model = self.builder.body["metadata"]["name"]
        version = allocate(job.body, model, self.seen.ledger, self.versions, self.key, last_of(self.builder.body))
        if version.ledger:
            exists = "resourceVersion" in version.ledger["metadata"]
            (self.builder.apply if exists else self.builder.create).append(version.ledger)
        body = imported_version(self.builder.body, self.entry, result, version.number, job.ended_at, self.platform)
        self.builder.record.append(body)
        self.builder.delete.append(job.body)
        return self._state(ImportState.IMPORTED, None, _left_out(result), number).model_copy(
            update={"model_version": body["metadata"]["name"], "imported_at": job.ended_at}
        )

    def _state(
        self, state: ImportState, reason: AnyReason | str | None, message: str | None, number: int = 0
    ) -> ImportStatus:
        return ImportStatus(
            uri=self.entry.uri,
            key=self.key,
            state=state,
            reason=str(reason) if reason else None,
            message=message[:MAX_MESSAGE] if message else None,
            tries=number or None,
        )


def _left_out(result: ImportResult) -> str | None:
    if not result.left_out_count:
        return None
    return f"Not part of the model, and not imported: {', '.join(result.left_out)} ({result.left_out_count} in all)."
