"""ModelVersion: Ready only after every file was hashed again and matched its manifest."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from hone_api.base.meta import MAX_COUNT
from hone_api.blocks.delivery import Delivery
from hone_api.contract.report import VerifyResult
from hone_api.kinds.modelversion import ModelVersionSpec
from hone_api.verdicts.servable import TRANSFORMERS, verdicts
from hone_api.words.failures import FailureCode, Retry
from hone_api.words.progress_numbers import DIGITS_OF_LOSS
from hone_api.words.states import AnyReason, ConditionType, Reason
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.version.verify import claims, verify
from hone_operator.progress.numbers import Latest, number
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.core.outcome_builder import VersionBuilder, as_json
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.refusals import final_refusal
from hone_operator.reconcile.core.validation import accept, read_spec, spec_problems
from hone_operator.reconcile.staging import retrying
from hone_operator.reconcile.staging.observed import of_component
from hone_operator.reconcile.staging.staging_attempts import (
    StagingAttempts,
    observe_attempts,
    remember,
    start_timeout_cause,
)
from hone_operator.reconcile.version import delivery, measuring, signing
from hone_operator.reconcile.version.measuring import ObservedForEvaluations

RECHECK_SECONDS = 15.0
REFUSED = frozenset({FailureCode.INVALID_VALUE, FailureCode.NOT_SUPPORTED_YET})
"""Codes of a record for which no Job begins."""


@dataclass(frozen=True)
class ObservedForModelVersion:
    """Everything that the decision depends on in addition to the ModelVersion itself."""

    jobs: Sequence[ObservedJob] = ()
    missing_claim: str | None = None
    missing_targets: frozenset[str] = frozenset()
    """Claims that deliveries write and that do not exist."""
    aliases: str | None = None
    """Names of the aliases that point to it, separated by commas."""
    model_deliveries: Sequence[Mapping[str, Any]] = ()
    """Deliveries that its Model asks for."""
    evaluations: ObservedForEvaluations = field(default_factory=ObservedForEvaluations)
    reports: Mapping[str, Latest] = field(default_factory=dict)
    """What pods report, by uid of their Job."""
    refusals: Sequence[Refusal] = field(default_factory=tuple)


def reconcile(version: Mapping[str, Any], seen: ObservedForModelVersion, now: datetime, platform: Platform) -> Outcome:
    """The next step of this ModelVersion. Pure."""
    if version["metadata"].get("deletionTimestamp"):
        return Outcome()
    builder = VersionBuilder(version, now)
    try:
        spec, unknown = read_spec(ModelVersionSpec, version)
        claims(spec)
    except ValidationError as error:
        return _refuse(builder, FailureCode.INVALID_VALUE, spec_problems(error))
    except names.InvalidReferenceError as error:
        return _refuse(builder, FailureCode.NOT_SUPPORTED_YET, str(error))
    if unknown:
        accept(builder, unknown)
    spec = _with_deliveries(spec, seen.model_deliveries)
    _columns(builder, spec, seen.aliases)
    _servable(builder, spec)
    if verified_at := builder.old.get("verifiedAt"):
        # The status has all they say; failed ones stay, for their logs.
        builder.delete += [job.body for job in of_component(seen.jobs, "verify")]
        return _verified(builder, spec, seen, verified_at, platform)
    delivery.waiting(builder, spec, seen.jobs, "The files are not verified yet.")
    return _verify(builder, spec, seen, observe_attempts(of_component(seen.jobs, "verify")), platform)


def _refuse(builder: VersionBuilder, reason: AnyReason, message: str) -> Outcome:
    """Final, except for a model that another version has verified, which stays verified."""
    if not builder.old.get("verifiedAt"):
        return _unverified(builder, reason, message, final=True)
    builder.conditions.keep_all()
    builder.conditions.set(ConditionType.ACCEPTED, False, reason, message)
    builder.add_event_if_changed(ConditionType.ACCEPTED, warning=True)
    return builder.outcome()


def _with_deliveries(spec: ModelVersionSpec, more: Sequence[Mapping[str, Any]]) -> ModelVersionSpec:
    """The record with the deliveries of its Model; entries that only another version of Hone knows are left out."""
    valid = []
    for entry in more:
        with suppress(ValidationError):
            valid.append(Delivery.model_validate(entry))
    return spec.model_copy(update={"deliveries": [*(spec.deliveries or ()), *valid]}) if valid else spec


def _columns(builder: VersionBuilder, spec: ModelVersionSpec, aliases: str | None) -> None:
    base = spec.lineage.base_model
    loss = next((n for n in spec.evaluation.numbers if n.name == "loss"), None)
    builder.put(
        base=(base.model_version or base.uri.removeprefix("hf://"))[:253],
        evalLoss=_for_column(loss.tuned) if loss and loss.tuned else None,
        baseEvalLoss=_for_column(loss.base) if loss and loss.base else None,
        aliases=aliases,
        sizeBytes=min(sum(artifact.size_bytes for artifact in spec.artifacts), MAX_COUNT),
    )


def _servable(builder: VersionBuilder, spec: ModelVersionSpec) -> None:
    """By the record alone: whether the files are there and right is another condition."""
    by_server = verdicts(spec)
    serves = any(verdict.loads for verdict in by_server if verdict.server != TRANSFORMERS)
    reason = Reason.LOADS if serves else Reason.NOT_SERVABLE
    builder.conditions.set(ConditionType.SERVABLE, serves, reason, "; ".join(map(str, by_server)) + ".")


def _for_column(loss: str) -> str:
    return number(loss, DIGITS_OF_LOSS) or loss


def _verify(
    builder: VersionBuilder,
    spec: ModelVersionSpec,
    seen: ObservedForModelVersion,
    attempts: StagingAttempts,
    platform: Platform,
) -> Outcome:
    number = max(attempts.number, builder.status.get("tries") or 0)
    attempts = remember(attempts, _final_cause(builder))
    if attempts.job and attempts.job.finished:
        builder.put(lastTryTime=attempts.job.ended_at, tries=number)
    if attempts.ending and isinstance(attempts.ending.result, VerifyResult) and attempts.job and not attempts.cause:
        return _verified(builder, spec, seen, attempts.job.ended_at, platform)
    cause = attempts.cause or start_timeout_cause(attempts, builder.now, platform.trainer.start_timeout_seconds)
    if cause and (cause.retry is Retry.NEVER or attempts.cause is None):
        builder.delete += [attempts.job.body] if attempts.active and attempts.job else []
        return _unverified(builder, cause.code, cause.message, final=True)
    if attempts.active and attempts.job:
        builder.await_start(attempts.job)
        obstacle = attempts.obstacle
        if obstacle:
            builder.check_in(RECHECK_SECONDS)
        if number > 1 and builder.conditions.failed_before(ConditionType.READY):
            return _unverified(builder, *retrying.still(builder.conditions.before(ConditionType.READY), attempts))
        if obstacle:
            return _unverified(builder, obstacle.reason, obstacle.message)
        return _unverified(builder, Reason.VERIFYING, "Every file is being hashed.")
    if seen.missing_claim:
        builder.check_in(RECHECK_SECONDS)
        message = f"PersistentVolumeClaim {seen.missing_claim} does not exist in this namespace."
        return _unverified(builder, Reason.PVC_NOT_FOUND, message)
    start = attempts.next_start()
    if cause and start and start > builder.now:
        builder.check_in(builder.until(start))
        return _unverified(builder, cause.code, retrying.later(cause.advice, number + 1, start))
    builder.create += verify(builder.body, spec, number + 1, platform)
    builder.delete += [*attempts.older, *([attempts.job.body] if attempts.job else [])]
    builder.put(tries=number + 1)
    if refused := final_refusal(seen.refusals):
        return _unverified(builder, refused.code, refused.message, final=True)
    for refusal in seen.refusals:
        builder.check_in(RECHECK_SECONDS)
        return _unverified(builder, refusal.reason, refusal.message)
    if cause:
        return _unverified(builder, cause.code, retrying.underway(cause.advice, number + 1))
    return _unverified(builder, Reason.VERIFYING, "Every file is being hashed.")


def _final_cause(builder: VersionBuilder) -> Cause | None:
    """The final cause of a Job that condition Verified reports; None: it reports none."""
    before = builder.conditions.before(ConditionType.VERIFIED)
    if not builder.conditions.given_up_before(ConditionType.VERIFIED) or before["reason"] in REFUSED:
        return None
    return Cause(FailureCode(before["reason"]), before.get("message", ""))


def _unverified(builder: VersionBuilder, reason: AnyReason, message: str, final: bool = False) -> Outcome:
    builder.conditions.set(ConditionType.VERIFIED, False, reason, message)
    builder.ready(False, reason, message, reconciling=not final, stalled=final)
    if reason != Reason.VERIFYING:
        builder.add_event_if_changed(ConditionType.READY, warning=True)
    return builder.outcome()


def _verified(
    builder: VersionBuilder, spec: ModelVersionSpec, seen: ObservedForModelVersion, at: str, platform: Platform
) -> Outcome:
    builder.put(verifiedAt=at, downloadPod=as_json(platform.download_pod()))
    builder.conditions.set(ConditionType.VERIFIED, True, Reason.VERIFIED, "Every file matches its manifest.")
    signature = signing.reconcile(builder, spec, seen.jobs, seen.refusals, platform)
    if not signature.usable:
        final = signature.settled
        builder.ready(False, signature.reason, signature.message, reconciling=not final, stalled=final)
        if signature.reason != Reason.SIGNING:
            builder.add_event_if_changed(ConditionType.READY, warning=True)
        delivery.waiting(builder, spec, seen.jobs, f"The model is not signed yet: {signature.message}")
        return builder.outcome()
    builder.ready(True, Reason.VERIFIED, "Every file matches its manifest.")
    builder.add_event_if_changed(ConditionType.READY)
    if not signature.settled:
        delivery.waiting(builder, spec, seen.jobs, f"The model is not signed yet: {signature.message}")
        return builder.outcome()
    deliveries = delivery.ObservedDeliveries(
        seen.jobs, seen.missing_targets, seen.refusals, signature.signed, seen.reports
    )
    delivery.reconcile(builder, spec, deliveries, platform)
    measuring.reconcile(builder, spec, seen.evaluations, seen.jobs, seen.refusals, platform)
    return builder.outcome()
