"""Dataset: materialized once for each generation; retried with backoff while that can help."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from hone_api.base.wording import counted
from hone_api.contract.report import DatasetResult
from hone_api.contract.status_json import DatasetFailureJson
from hone_api.dataset.dataset import DatasetSpec
from hone_api.words.failures import FAILURES, FailureCode, Retry
from hone_api.words.states import AnyReason, ConditionType, DatasetPhase, Reason
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.dataset.materialize import COMPONENT, materialize
from hone_operator.reconcile.core import bounds, unsupported
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.core.outcome_builder import DatasetBuilder
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.refusals import final_refusal, shared_store_problem
from hone_operator.reconcile.core.upstream import Wait
from hone_operator.reconcile.core.validation import accept, read_spec, spec_problems
from hone_operator.reconcile.dataset import materialized, refresh, review
from hone_operator.reconcile.dataset.dataset_references import resolve
from hone_operator.reconcile.staging import inputs, retrying
from hone_operator.reconcile.staging.observed import of_component
from hone_operator.reconcile.staging.staging_attempts import (
    StagingAttempts,
    observe_attempts,
    remember,
    start_timeout_cause,
)

RECHECK_SECONDS = 15.0


@dataclass(frozen=True)
class ObservedForDataset:
    """Everything that the decision depends on in addition to the Dataset itself."""

    jobs: Sequence[ObservedJob] = ()
    missing: str | None = None
    """`kind/name` of a source object in the namespace that does not exist."""
    refusals: Sequence[Refusal] = field(default_factory=tuple)
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The other Datasets of the namespace, by name."""
    versions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The ModelVersions that the spec refers to; missing ones are absent."""


def reconcile(dataset: Mapping[str, Any], seen: ObservedForDataset, now: datetime, platform: Platform) -> Outcome:
    """The next step of this Dataset. Pure."""
    if dataset["metadata"].get("deletionTimestamp"):
        return Outcome()
    builder = DatasetBuilder(dataset, now)
    try:
        spec, unknown = read_spec(DatasetSpec, dataset)
        if spec.source:
            names.split_uri(spec.source.uri)
    except ValidationError as error:
        return _refuse(builder, FailureCode.INVALID_VALUE, spec_problems(error))
    except names.InvalidReferenceError as error:
        return _refuse(builder, FailureCode.INVALID_VALUE, f"spec.source.uri: {error}")
    if wrong := unsupported.dataset_contradictions(spec):
        return _refuse(builder, FailureCode.CONFLICTING_FIELDS, "; ".join(wrong))
    if wrong := list(refresh.problems(spec)):
        return _refuse(builder, FailureCode.INVALID_VALUE, "; ".join(wrong))
    if asked := bounds.problems(dataset, platform):
        return _refuse(builder, bounds.CODE, "; ".join(asked))
    if problem := shared_store_problem(spec.resources.pods, platform):
        return _refuse(builder, FailureCode.PLATFORM_UNSUITABLE, problem)
    accept(builder, unknown)
    leads = of_component(seen.jobs, COMPONENT)
    current = [j for j in leads if j.label(names.GENERATION) == builder.generation]
    builder.delete += [j.body for j in leads if j.label(names.GENERATION) != builder.generation]
    if is_ready(dataset):
        builder.conditions.keep_rest()
        return (
            _look_again(builder, spec, seen, observe_attempts(current), platform) if spec.refresh else builder.outcome()
        )
    if builder.old.get("observedGeneration") != builder.generation:
        builder.put(tries=None, lastTryTime=None, failure=None)
    return _materialize(builder, spec, seen, observe_attempts(current), platform)


def is_ready(dataset: Mapping[str, Any]) -> bool:
    """Whether the present generation was materialized with every review decision, so that nothing is left to do."""
    status = dataset.get("status") or {}
    current = status.get("observedGeneration") == dataset["metadata"].get("generation")
    return current and is_true(dataset, ConditionType.READY) and review.has_all_decisions(dataset)


def is_news(dataset: Mapping[str, Any], job: ObservedJob) -> bool:
    """Whether the status does not yet have the result of this Job."""
    return not is_ready(dataset) or refresh.is_news(dataset["status"], job)


def _look_again(
    builder: DatasetBuilder, spec: DatasetSpec, seen: ObservedForDataset, attempts: StagingAttempts, platform: Platform
) -> Outcome:
    """The next step of refreshing a Ready Dataset."""
    assert spec.refresh is not None
    job = attempts.job
    if job and attempts.active:
        if cause := start_timeout_cause(attempts, builder.now, platform.trainer.start_timeout_seconds):
            builder.put(lastTryTime=builder.time)
            builder.delete.append(job.body)
            refresh.record_failure(builder, cause)
        else:
            builder.await_start(job)
            builder.check_in(RECHECK_SECONDS if attempts.obstacle else None)
            return builder.outcome()
    elif job and refresh.is_news(builder.old, job):
        refresh.record_look(builder, attempts, platform)
    due = refresh.due(spec.refresh, builder.to_json())
    if due and due > builder.now:
        builder.check_in(builder.until(due))
        return builder.outcome()
    return _look(builder, spec, seen, attempts, platform)


def _look(
    builder: DatasetBuilder, spec: DatasetSpec, seen: ObservedForDataset, attempts: StagingAttempts, platform: Platform
) -> Outcome:
    """Start the look that is due."""
    named = resolve(builder.body["metadata"]["name"], spec, seen.datasets, seen.versions)
    if seen.missing or isinstance(named, Wait | Cause):
        builder.check_in(RECHECK_SECONDS)
        obstacle = named if isinstance(named, Wait | Cause) else _missing(seen.missing or "")
        return refresh.put_off(builder, obstacle)
    if spec.mixture and refresh.same_parts(named.parts, builder.status):
        refresh.record_unchanged(builder, builder.time)
        return builder.outcome()
    number = max(attempts.number, builder.status.get("tries") or 0) + 1
    source_version = builder.status.get("sourceVersion")
    builder.create += materialize(builder.body, spec, number, platform, named, source_version=source_version)
    builder.delete += [*attempts.older, *([attempts.job.body] if attempts.job else [])]
    for refusal in seen.refusals:
        builder.check_in(RECHECK_SECONDS)
        return refresh.put_off(builder, Wait(refusal.reason, refusal.message))
    builder.put(tries=number)
    return builder.outcome()


def _refuse(builder: DatasetBuilder, reason: AnyReason, message: str) -> Outcome:
    if is_ready(builder.body):  # another version accepted and materialized it: its content is as good as before
        builder.conditions.keep_all()
        builder.conditions.set(ConditionType.ACCEPTED, False, reason, message)
        builder.add_event_if_changed(ConditionType.ACCEPTED, warning=True)
        return builder.outcome()
    builder.conditions.set(ConditionType.ACCEPTED, False, reason, message)
    builder.put(failure={"code": reason, "message": message})
    return _not_ready(builder, reason, message, DatasetPhase.FAILED, stalled=True, warning=True)


def _not_ready(
    builder: DatasetBuilder,
    reason: AnyReason,
    message: str,
    phase: DatasetPhase,
    *,
    stalled: bool = False,
    warning: bool = False,
) -> Outcome:
    builder.ready(False, reason, message, reconciling=not stalled, stalled=stalled)
    builder.put(phase=phase)
    if warning:
        builder.add_event_if_changed(ConditionType.READY, warning=reason not in inputs.HEALTHY)
    return builder.outcome()


def _materialize(
    builder: DatasetBuilder, spec: DatasetSpec, seen: ObservedForDataset, attempts: StagingAttempts, platform: Platform
) -> Outcome:
    builder.put(uploadPod=materialized.pod_of_people(platform) if spec.suspend else None)
    number = max(attempts.number, builder.status.get("tries") or 0)
    attempts = remember(attempts, _cause_of(builder, attempts))
    if attempts.job and attempts.job.finished:
        builder.put(lastTryTime=attempts.job.ended_at)
    result = attempts.ending.result if attempts.ending else None
    if isinstance(result, DatasetResult):
        materialized.describe(builder, result, platform)
    review.set_condition(builder, spec)
    if isinstance(result, DatasetResult) and attempts.cause is None and not review.news(builder.body, spec, result):
        if result.digest:
            return _ready(builder, spec, result, number, platform)
        if result.synthetic:
            return review.wait(builder, result.synthetic, number)
    cause = attempts.cause or start_timeout_cause(attempts, builder.now, platform.trainer.start_timeout_seconds)
    if attempts.active and not (cause and attempts.cause is None):
        return _working(builder, attempts, number)
    if cause and (cause.retry is Retry.NEVER or attempts.cause is None):
        _fail(builder, cause, number)
        builder.delete += [attempts.job.body] if attempts.active and attempts.job else []
        return _not_ready(builder, cause.code, cause.advice, DatasetPhase.FAILED, stalled=True, warning=True)
    if spec.suspend:
        return _not_ready(builder, Reason.SUSPENDED, "spec.suspend is true.", DatasetPhase.PENDING)
    if seen.missing:
        return _source_missing(builder, seen.missing)
    named = resolve(builder.body["metadata"]["name"], spec, seen.datasets, seen.versions)
    if isinstance(named, Wait):
        return _not_ready(builder, named.reason, named.message, DatasetPhase.PENDING, warning=True)
    if isinstance(named, Cause):
        _fail(builder, named, number)
        return _not_ready(builder, named.code, named.advice, DatasetPhase.FAILED, stalled=True, warning=True)
    start = attempts.next_start()
    if cause and start and start > builder.now:
        builder.check_in(builder.until(start))
        _fail(builder, cause, number)
        return _not_ready(
            builder, cause.code, retrying.later(cause.advice, number + 1, start), DatasetPhase.FAILED, warning=True
        )
    builder.create += materialize(builder.body, spec, number + 1, platform, named)
    return _start_attempt(builder, seen, attempts, number + 1, cause)


def _cause_of(builder: DatasetBuilder, attempts: StagingAttempts) -> Cause | None:
    """Why this attempt failed, by a status that was written after its end; None: it does not say."""
    failure, job = builder.old.get("failure"), attempts.job
    recorded = (builder.old.get("observedGeneration"), builder.old.get("lastTryTime"))
    if job is None or recorded != (builder.generation, job.ended_at):
        return None
    if not (failure and builder.conditions.was_true(ConditionType.ACCEPTED) and failure["code"] in FAILURES):
        return None
    return Cause(FailureCode(failure["code"]), failure["message"], failure.get("hint"))


def _working(builder: DatasetBuilder, attempts: StagingAttempts, number: int) -> Outcome:
    builder.put(tries=number)
    if attempts.job:
        builder.await_start(attempts.job)
    if attempts.obstacle:
        builder.check_in(RECHECK_SECONDS)
    if number > 1 and builder.conditions.failed_before(ConditionType.READY):
        reason, message = retrying.still(builder.conditions.before(ConditionType.READY), attempts)
        return _not_ready(builder, reason, message, DatasetPhase(builder.old.get("phase") or DatasetPhase.FAILED))
    if attempts.obstacle:
        return _not_ready(
            builder, attempts.obstacle.reason, attempts.obstacle.message, DatasetPhase.PENDING, warning=True
        )
    return _not_ready(
        builder, Reason.MATERIALIZING, f"Attempt {number} is reading the source.", DatasetPhase.MATERIALIZING
    )


def _start_attempt(
    builder: DatasetBuilder, seen: ObservedForDataset, attempts: StagingAttempts, number: int, cause: Cause | None
) -> Outcome:
    builder.delete += [*attempts.older, *([attempts.job.body] if attempts.job else [])]
    builder.put(tries=number)
    if refused := final_refusal(seen.refusals):
        builder.create.clear()
        _fail(builder, refused, number - 1)
        return _not_ready(builder, refused.code, refused.advice, DatasetPhase.FAILED, stalled=True, warning=True)
    for refusal in seen.refusals:
        builder.check_in(RECHECK_SECONDS)
        return _not_ready(builder, refusal.reason, refusal.message, DatasetPhase.PENDING, warning=True)
    if cause:
        # The failure stays visible until the new attempt has a result.
        return _not_ready(builder, cause.code, retrying.underway(cause.advice, number), DatasetPhase.FAILED)
    return _not_ready(
        builder, Reason.MATERIALIZING, f"Attempt {number} is reading the source.", DatasetPhase.MATERIALIZING
    )


def _source_missing(builder: DatasetBuilder, missing: str) -> Outcome:
    wait = _missing(missing)
    builder.check_in(RECHECK_SECONDS)
    return _not_ready(builder, wait.reason, wait.message, DatasetPhase.PENDING, warning=True)


def _missing(missing: str) -> Wait:
    kind, _, name = missing.partition("/")
    reason: AnyReason = FailureCode.CONFIG_MAP_NOT_FOUND if kind == "ConfigMap" else Reason.PVC_NOT_FOUND
    return Wait(reason, f"{kind} {name} of spec.source.uri does not exist in this namespace: create it.")


def _ready(
    builder: DatasetBuilder, spec: DatasetSpec, result: DatasetResult, number: int, platform: Platform
) -> Outcome:
    materialized.serve(builder, result, platform)
    builder.put(tries=number, readTime=builder.status.get("lastTryTime"))
    if spec.refresh:
        refresh.first(builder)
    message = f"{counted(result.rows, 'row')}, {result.rejected:,} rejected."
    builder.ready(True, Reason.MATERIALIZED, message)
    builder.add_event_if_changed(ConditionType.READY)
    return builder.outcome()


def _fail(builder: DatasetBuilder, cause: Cause, number: int) -> None:
    failure = cause.to_json()
    failure_body: DatasetFailureJson = {"code": failure["code"], "message": failure["message"], "hint": failure["hint"]}
    builder.put(failure=failure_body, tries=number)
