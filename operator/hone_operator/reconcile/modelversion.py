"""ModelVersion: Ready only after every file was hashed again and matched its manifest."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from hone_api.delivery import Delivery
from hone_api.failures import FailureCode, Retry
from hone_api.meta import MAX_COUNT
from hone_api.modelversion import ModelVersionSpec
from hone_api.progress_numbers import DIGITS_OF_LOSS
from hone_api.report import VerifyResult
from hone_api.servable import TRANSFORMERS, verdicts
from hone_api.states import AnyReason, ConditionType, Reason
from hone_operator.desired import names
from hone_operator.desired.platform import Platform
from hone_operator.desired.verify import claims, verify
from hone_operator.progress.numbers import Latest, number
from hone_operator.reconcile import delivery, retrying, signing
from hone_operator.reconcile.failures import Cause
from hone_operator.reconcile.observed import of_component
from hone_operator.reconcile.outcome import Outcome, Refusal
from hone_operator.reconcile.outcome_builder import VersionDraft, as_json
from hone_operator.reconcile.pods import ObservedJob
from hone_operator.reconcile.refusals import final_refusal
from hone_operator.reconcile.staging_attempts import StagingAttempts, observe_attempts, remember, timed_out
from hone_operator.reconcile.validation import accept, read_spec, spec_problems

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
    reports: Mapping[str, Latest] = field(default_factory=dict)
    """What pods report, by uid of their Job."""
    refusals: Sequence[Refusal] = field(default_factory=tuple)


def reconcile(version: Mapping[str, Any], seen: ObservedForModelVersion, now: datetime, platform: Platform) -> Outcome:
    """The next step of this ModelVersion. Pure."""
    if version["metadata"].get("deletionTimestamp"):
        return Outcome()
    draft = VersionDraft(version, now)
    try:
        spec, unknown = read_spec(ModelVersionSpec, version)
        claims(spec)
    except ValidationError as error:
        return _refuse(draft, FailureCode.INVALID_VALUE, spec_problems(error))
    except names.InvalidReferenceError as error:
        return _refuse(draft, FailureCode.NOT_SUPPORTED_YET, str(error))
    if unknown:
        accept(draft, unknown)
    spec = _with_deliveries(spec, seen.model_deliveries)
    _columns(draft, spec, seen.aliases)
    _servable(draft, spec)
    if verified_at := draft.old.get("verifiedAt"):
        # The status has all they say; failed ones stay, for their logs.
        draft.delete += [job.body for job in of_component(seen.jobs, "verify")]
        return _verified(draft, spec, seen, verified_at, platform)
    delivery.waiting(draft, spec, "The files are not verified yet.")
    return _verify(draft, spec, seen, observe_attempts(of_component(seen.jobs, "verify")), platform)


def _refuse(draft: VersionDraft, reason: AnyReason, message: str) -> Outcome:
    """Final, except for a model that another version has verified, which stays verified."""
    if not draft.old.get("verifiedAt"):
        return _unverified(draft, reason, message, final=True)
    draft.conditions.keep_all()
    draft.conditions.set(ConditionType.ACCEPTED, False, reason, message)
    draft.add_event_if_changed(ConditionType.ACCEPTED, warning=True)
    return draft.outcome()


def _with_deliveries(spec: ModelVersionSpec, more: Sequence[Mapping[str, Any]]) -> ModelVersionSpec:
    """The record with the deliveries of its Model; entries that only another version of Hone knows are left out."""
    valid = []
    for entry in more:
        with suppress(ValidationError):
            valid.append(Delivery.model_validate(entry))
    return spec.model_copy(update={"deliveries": [*(spec.deliveries or ()), *valid]}) if valid else spec


def _columns(draft: VersionDraft, spec: ModelVersionSpec, aliases: str | None) -> None:
    base = spec.lineage.base_model
    loss = next((n for n in spec.evaluation.numbers if n.name == "loss"), None)
    draft.put(
        base=(base.model_version or base.uri.removeprefix("hf://"))[:253],
        evalLoss=_for_column(loss.tuned) if loss and loss.tuned else None,
        baseEvalLoss=_for_column(loss.base) if loss and loss.base else None,
        aliases=aliases,
        sizeBytes=min(sum(artifact.size_bytes for artifact in spec.artifacts), MAX_COUNT),
    )


def _servable(draft: VersionDraft, spec: ModelVersionSpec) -> None:
    """By the record alone: whether the files are there and right is another condition."""
    by_server = verdicts(spec)
    serves = any(verdict.loads for verdict in by_server if verdict.server != TRANSFORMERS)
    reason = Reason.LOADS if serves else Reason.NOT_SERVABLE
    draft.conditions.set(ConditionType.SERVABLE, serves, reason, "; ".join(map(str, by_server)) + ".")


def _for_column(loss: str) -> str:
    return number(loss, DIGITS_OF_LOSS) or loss


def _verify(
    draft: VersionDraft,
    spec: ModelVersionSpec,
    seen: ObservedForModelVersion,
    attempts: StagingAttempts,
    platform: Platform,
) -> Outcome:
    number = max(attempts.number, draft.status.get("tries") or 0)
    attempts = remember(attempts, _final_cause(draft))
    if attempts.job and attempts.job.finished:
        draft.put(lastTryTime=attempts.job.ended_at, tries=number)
    if attempts.ending and isinstance(attempts.ending.result, VerifyResult) and attempts.job and not attempts.cause:
        return _verified(draft, spec, seen, attempts.job.ended_at, platform)
    cause = attempts.cause or timed_out(attempts, draft.now, platform.start_timeout_seconds)
    if cause and (cause.retry is Retry.NEVER or attempts.cause is None):
        draft.delete += [attempts.job.body] if attempts.active and attempts.job else []
        return _unverified(draft, cause.code, cause.message, final=True)
    if attempts.active and attempts.job:
        draft.await_start(attempts.job)
        obstacle = attempts.obstacle
        if obstacle:
            draft.check_in(RECHECK_SECONDS)
        if number > 1 and draft.conditions.failed_before(ConditionType.READY):
            return _unverified(draft, *retrying.still(draft.conditions.before(ConditionType.READY), attempts))
        if obstacle:
            return _unverified(draft, obstacle.reason, obstacle.message)
        return _unverified(draft, Reason.VERIFYING, "Every file is being hashed.")
    if seen.missing_claim:
        draft.check_in(RECHECK_SECONDS)
        message = f"PersistentVolumeClaim {seen.missing_claim} does not exist in this namespace."
        return _unverified(draft, Reason.PVC_NOT_FOUND, message)
    start = attempts.next_start()
    if cause and start and start > draft.now:
        draft.check_in(draft.until(start))
        return _unverified(draft, cause.code, retrying.later(cause.advice, number + 1, start))
    draft.create += verify(draft.body, spec, number + 1, platform)
    draft.delete += [*attempts.older, *([attempts.job.body] if attempts.job else [])]
    draft.put(tries=number + 1)
    if refused := final_refusal(seen.refusals):
        return _unverified(draft, refused.code, refused.message, final=True)
    for refusal in seen.refusals:
        draft.check_in(RECHECK_SECONDS)
        return _unverified(draft, refusal.reason, refusal.message)
    if cause:
        return _unverified(draft, cause.code, retrying.underway(cause.advice, number + 1))
    return _unverified(draft, Reason.VERIFYING, "Every file is being hashed.")


def _final_cause(draft: VersionDraft) -> Cause | None:
    """The final cause of a Job that condition Verified reports; None: it reports none."""
    before = draft.conditions.before(ConditionType.VERIFIED)
    if not draft.conditions.given_up_before(ConditionType.VERIFIED) or before["reason"] in REFUSED:
        return None
    return Cause(FailureCode(before["reason"]), before.get("message", ""))


def _unverified(draft: VersionDraft, reason: AnyReason, message: str, final: bool = False) -> Outcome:
    draft.conditions.set(ConditionType.VERIFIED, False, reason, message)
    draft.ready(False, reason, message, reconciling=not final, stalled=final)
    if reason != Reason.VERIFYING:
        draft.add_event_if_changed(ConditionType.READY, warning=True)
    return draft.outcome()


def _verified(
    draft: VersionDraft, spec: ModelVersionSpec, seen: ObservedForModelVersion, at: str, platform: Platform
) -> Outcome:
    draft.put(verifiedAt=at, downloadPod=as_json(platform.pod_image()))
    draft.conditions.set(ConditionType.VERIFIED, True, Reason.VERIFIED, "Every file matches its manifest.")
    signature = signing.reconcile(draft, spec, seen.jobs, seen.refusals, platform)
    if not signature.usable:
        final = signature.settled
        draft.ready(False, signature.reason, signature.message, reconciling=not final, stalled=final)
        if signature.reason != Reason.SIGNING:
            draft.add_event_if_changed(ConditionType.READY, warning=True)
        delivery.waiting(draft, spec, f"The model is not signed yet: {signature.message}")
        return draft.outcome()
    draft.ready(True, Reason.VERIFIED, "Every file matches its manifest.")
    draft.add_event_if_changed(ConditionType.READY)
    if not signature.settled:
        delivery.waiting(draft, spec, f"The model is not signed yet: {signature.message}")
        return draft.outcome()
    deliveries = delivery.ObservedDeliveries(
        seen.jobs, seen.missing_targets, seen.refusals, signature.signed, seen.reports
    )
    delivery.reconcile(draft, spec, deliveries, platform)
    return draft.outcome()
