"""spec.imports of a Model: one Job for each attempt at each entry, then a ModelVersion. Pure.

The status remembers what was imported, so a version that was deleted is not imported again. If the status is lost, the
ModelVersion's lineage has the key of its entry.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hone_api.failures import FailureCode, Retry
from hone_api.imports import ModelImport
from hone_api.model import ImportStatus, ModelSpec
from hone_api.report import ImportResult
from hone_api.states import AnyReason, ConditionType, ImportState, Reason
from hone_operator.desired import names
from hone_operator.desired.importing import COMPONENT, claims, imported_version, importing, key_of, rows_of
from hone_operator.desired.model_version import allocate
from hone_operator.desired.platform import Platform
from hone_operator.reconcile import bounds, inputs, retrying
from hone_operator.reconcile.observed import of_component
from hone_operator.reconcile.outcome import Refusal
from hone_operator.reconcile.outcome_builder import ModelDraft, as_json
from hone_operator.reconcile.pods import ObservedJob
from hone_operator.reconcile.refusals import final_refusal
from hone_operator.reconcile.staging_attempts import Tries, observe_tries, timed_out

Body = Mapping[str, Any]
RECHECK_SECONDS = 15.0
WORKING = "The files are being read and checked."


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


def decide_imports(draft: ModelDraft, spec: ModelSpec, versions: Sequence[Body], seen: ObservedForImports) -> None:
    """The next step of each import; sets status.imports and condition Imported."""
    jobs, states = of_component(seen.jobs, COMPONENT), []
    if seen.platform is not None:
        before = {entry["key"]: entry for entry in draft.old.get("imports") or ()}
        by_key = {key: version for version in versions if (key := _key(version))}
        for entry in spec.imports or ():
            key = key_of(draft.body["metadata"]["name"], entry)
            own = [job for job in jobs if _content(job) == key]
            one = _OneImport(draft, entry, key, versions, seen, seen.platform)
            states.append(one.known(own, before.get(key), by_key.get(key)) or one.step(own, before.get(key)))
    keys = {state.key for state in states}
    draft.delete += [job.body for job in jobs if _content(job) not in keys]
    draft.put(imports=[as_json(state) for state in states] or None)
    _condition(draft, states)


def _key(version: Body) -> str | None:
    """Of the import that made a ModelVersion."""
    key: str | None = ((version["spec"].get("lineage") or {}).get("imported") or {}).get("key")
    return key


def _content(job: ObservedJob) -> str | None:
    content: str | None = job.body["metadata"]["labels"].get(names.CONTENT)
    return content


def _condition(draft: ModelDraft, states: Sequence[ImportStatus]) -> None:
    if not states:
        return
    open_ones = [state for state in states if state.state != ImportState.IMPORTED]
    if not open_ones:
        versions = ", ".join(state.model_version or state.uri for state in states)
        draft.conditions.set(ConditionType.IMPORTED, True, Reason.IMPORTED, f"Imported as {versions}.")
    else:
        worst = next((state for state in open_ones if state.state == ImportState.FAILED), open_ones[0])
        words = "; ".join(f"{state.uri}: {state.message}" for state in open_ones)
        reason: Any = worst.reason or Reason.IMPORTING
        draft.conditions.set(ConditionType.IMPORTED, False, reason, words)
    failed = any(state.state == ImportState.FAILED or (state.tries or 0) > 1 for state in open_ones)
    if failed or not open_ones:
        draft.tell_change(ConditionType.IMPORTED, warning=failed)


@dataclass(frozen=True)
class _OneImport:
    """The import of one entry."""

    draft: ModelDraft
    entry: ModelImport
    key: str
    versions: Sequence[Body]
    seen: ObservedForImports
    platform: Platform

    def known(self, jobs: Sequence[ObservedJob], old: Any, version: Body | None) -> ImportStatus | None:
        """Its state if it is a version already, or was one."""
        if not version and not (old and old["state"] == ImportState.IMPORTED):
            return None
        self.draft.delete += [job.body for job in jobs]  # the ModelVersion has all they say
        if old and old["state"] == ImportState.IMPORTED:
            return ImportStatus.model_validate(old)
        assert version is not None
        at = version["spec"]["lineage"].get("finishedAt")
        return self._state(ImportState.IMPORTED, None, None).model_copy(
            update={"model_version": version["metadata"]["name"], "imported_at": at}
        )

    def step(self, jobs: Sequence[ObservedJob], old: Any) -> ImportStatus:
        """Its state, after its next Job was requested if one is due."""
        tries = observe_tries(jobs)
        number = max(tries.number, (old or {}).get("tries") or 0)
        if tries.ending and isinstance(tries.ending.result, ImportResult) and tries.job and not tries.cause:
            return self._imported(tries.ending.result, tries.job, number)
        cause = tries.cause or timed_out(tries, self.draft.now, self.platform.start_timeout_seconds)
        if cause and (cause.retry is Retry.NEVER or tries.cause is None):
            self.draft.delete += [tries.job.body] if tries.active and tries.job else []
            return self._state(ImportState.FAILED, cause.code, cause.message, number)
        if old and old["state"] == ImportState.FAILED and not jobs and old.get("tries"):
            return ImportStatus.model_validate(old)
        if tries.active and tries.job:
            return self._underway(tries, tries.job, number, old)
        for state, reason, words in self._obstacles():
            self.draft.check_in(RECHECK_SECONDS if reason == Reason.PVC_NOT_FOUND else None)
            return self._state(state, reason, words, number)
        start = tries.next_start()
        if cause and start and start > self.draft.now:
            self.draft.check_in(self.draft.until(start))
            return self._state(ImportState.PENDING, cause.code, retrying.later(cause.advice, number + 1, start), number)
        return self._begin(tries, number, retrying.underway(cause.advice, number + 1) if cause else None, old)

    def _underway(self, tries: Tries, job: ObservedJob, number: int, old: Any) -> ImportStatus:
        self.draft.await_start(job)
        if tries.obstacle:
            self.draft.check_in(RECHECK_SECONDS)
            return self._state(ImportState.PENDING, tries.obstacle.reason, tries.obstacle.message, number)
        if number > 1 and old and old.get("message"):
            message = retrying.underway(retrying.cut(old["message"]), number)
            return self._state(ImportState.IMPORTING, old.get("reason") or Reason.IMPORTING, message, number)
        return self._state(ImportState.IMPORTING, Reason.IMPORTING, WORKING, number)

    def _obstacles(self) -> Iterator[tuple[ImportState, AnyReason, str]]:
        """What must change before a Job can begin."""
        try:
            named = claims(self.entry)
        except names.InvalidReferenceError as error:
            yield ImportState.FAILED, FailureCode.INVALID_VALUE, str(error)
            return
        yield from ((ImportState.PENDING, bounds.CODE, w) for w in bounds.imported(self.entry, self.platform.bounds))
        for claim in named:
            if claim in self.seen.missing_claims:
                words = f"PersistentVolumeClaim {claim} does not exist in this namespace."
                yield ImportState.PENDING, Reason.PVC_NOT_FOUND, words
        evaluation = self.entry.evaluation
        if evaluation and (
            problem := inputs.dataset_problem(evaluation.dataset, inputs.VALIDATION, self.seen.datasets)
        ):
            yield ImportState.PENDING, *problem

    def _begin(self, tries: Tries, number: int, again: str | None, old: Any) -> ImportStatus:
        evaluation = self.entry.evaluation
        rows = rows_of(self.seen.datasets[evaluation.dataset]) if evaluation else None
        objects = importing(self.draft.body, self.entry, number + 1, self.platform, rows)
        refused = [r for r in self.seen.refusals if r.name in {body["metadata"]["name"] for body in objects}]
        if final := final_refusal(refused):
            return self._state(ImportState.FAILED, final.code, final.message, number)
        self.draft.create += objects
        self.draft.delete += [*tries.older, *([tries.job.body] if tries.job else [])]
        for refusal in refused:
            self.draft.check_in(RECHECK_SECONDS)
            return self._state(ImportState.PENDING, refusal.reason, refusal.message, number)
        reason = (old or {}).get("reason") if again else None
        return self._state(ImportState.IMPORTING, reason or Reason.IMPORTING, again or WORKING, number + 1)

    def _imported(self, result: ImportResult, job: ObservedJob, number: int) -> ImportStatus:
        """The record of the files; one in a decision, because each needs a number of its own."""
        if self.draft.record:
            self.draft.check_in(0)
            return self._state(ImportState.IMPORTING, Reason.IMPORTING, WORKING, number)
        model = self.draft.body["metadata"]["name"]
        version = allocate(job.body, model, self.seen.ledger, self.versions, self.key)
        if version.ledger:
            exists = "resourceVersion" in version.ledger["metadata"]
            (self.draft.apply if exists else self.draft.create).append(version.ledger)
        body = imported_version(self.draft.body, self.entry, result, version.number, job.ended_at, self.platform)
        self.draft.record.append(body)
        self.draft.delete.append(job.body)
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
            message=message[:2000] if message else None,
            tries=number or None,
        )


def _left_out(result: ImportResult) -> str | None:
    if not result.left_out_count:
        return None
    return f"Not part of the model, and not imported: {', '.join(result.left_out)} ({result.left_out_count} in all)."
