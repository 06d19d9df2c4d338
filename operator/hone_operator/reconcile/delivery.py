"""Deliveries of a ModelVersion: one Job for each attempt at each entry; none of them changes whether it is Ready."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.delivery import Delivery
from hone_api.failures import FailureCode, Retry
from hone_api.modelversion import DeliveryStatus, ModelVersionSpec
from hone_api.report import DeliverResult
from hone_api.states import AnyReason, ConditionType, DeliveryState, Reason
from hone_operator.desired import names
from hone_operator.desired.deliver import COMPONENT, Parcel, UndeliverableError, deliver, target_claim
from hone_operator.desired.platform import Platform
from hone_operator.reconcile import bounds, retrying
from hone_operator.reconcile.observed import of_component
from hone_operator.reconcile.outcome import Refusal
from hone_operator.reconcile.outcome_builder import VersionDraft, as_json
from hone_operator.reconcile.pods import ObservedJob
from hone_operator.reconcile.refusals import final_refusal
from hone_operator.reconcile.staging_attempts import Tries, observe_tries, timed_out

RECHECK_SECONDS = 15.0


@dataclass(frozen=True)
class ObservedDeliveries:
    """What the decision depends on."""

    jobs: Sequence[ObservedJob] = ()
    missing_claims: frozenset[str] = frozenset()
    """Claims that are named and do not exist."""
    refusals: Sequence[Refusal] = ()
    signed: bool = False
    """Whether the artifacts have a signature, which is delivered with them."""


def reconcile(draft: VersionDraft, spec: ModelVersionSpec, seen: ObservedDeliveries, platform: Platform) -> None:
    """The next step of each delivery of a verified ModelVersion; sets status.deliveries and condition Delivered."""
    before = {entry["key"]: entry for entry in draft.old.get("deliveries") or ()}
    jobs = of_component(seen.jobs, COMPONENT)
    states, keys = [], set()
    for target in spec.deliveries or ():
        try:
            parcel = Parcel.of(spec, target, platform)
        except (UndeliverableError, names.InvalidReferenceError) as error:
            states.append(_failed(target, names.digest(target.to_json()), FailureCode.DESTINATION_REFUSED, str(error)))
            continue
        keys.add(parcel.key)
        own = [job for job in jobs if job.body["metadata"]["labels"].get(names.CONTENT) == parcel.key]
        old = before.get(parcel.key)
        if old and old["state"] == DeliveryState.DELIVERED:
            draft.delete += [job.body for job in own]  # the status has all they say
            states.append(DeliveryStatus.model_validate(old))
            continue
        states.append(_One(draft, spec, parcel, seen, platform).step(own, old))
    draft.delete += [job.body for job in jobs if job.body["metadata"]["labels"].get(names.CONTENT) not in keys]
    draft.put(deliveries=[as_json(state) for state in states] or None)
    _condition(draft, states)


def waiting(draft: VersionDraft, spec: ModelVersionSpec, why: str) -> None:
    """Set condition Delivered of a version that is not to be delivered yet. What was delivered stays in the status."""
    if spec.deliveries:
        draft.conditions.set(ConditionType.DELIVERED, False, Reason.WAITING, why)


def _condition(draft: VersionDraft, states: Sequence[DeliveryStatus]) -> None:
    if not states:
        return
    open_ones = [state for state in states if state.state != DeliveryState.DELIVERED]
    if not open_ones:
        places = "; ".join(state.location or state.uri for state in states)
        draft.conditions.set(ConditionType.DELIVERED, True, Reason.DELIVERED, f"Every byte arrived at {places}.")
    else:
        worst = next((state for state in open_ones if state.state == DeliveryState.FAILED), open_ones[0])
        words = "; ".join(f"{state.uri}: {state.message}" for state in open_ones)
        reason: Any = worst.reason or Reason.DELIVERING
        draft.conditions.set(ConditionType.DELIVERED, False, reason, words)
    failed = any(state.state == DeliveryState.FAILED or (state.tries or 0) > 1 for state in open_ones)
    if failed or not open_ones:
        draft.tell_change(ConditionType.DELIVERED, warning=failed)


@dataclass(frozen=True)
class _One:
    """The delivery of one parcel."""

    draft: VersionDraft
    spec: ModelVersionSpec
    parcel: Parcel
    seen: ObservedDeliveries
    platform: Platform

    def step(self, jobs: Sequence[ObservedJob], old: Any) -> DeliveryStatus:
        """Its state, after its next Job was requested if one is due."""
        tries = observe_tries(jobs)
        number = max(tries.number, (old or {}).get("tries") or 0)
        if tries.ending and isinstance(tries.ending.result, DeliverResult) and tries.job and not tries.cause:
            self.draft.delete += [job.body for job in jobs]
            return self._delivered(tries.ending.result, number, tries.job.ended_at)
        cause = tries.cause or timed_out(tries, self.draft.now, self.platform.start_timeout_seconds)
        if cause and (cause.retry is Retry.NEVER or tries.cause is None):
            self.draft.delete += [tries.job.body] if tries.active and tries.job else []
            return _failed(self.parcel.target, self.parcel.key, cause.code, cause.message, number)
        if old and old["state"] == DeliveryState.FAILED and not jobs:
            return DeliveryStatus.model_validate(old)
        if tries.active and tries.job:
            return self._underway(tries, tries.job, number, old)
        for reason, words, seconds in self._obstacles():
            self.draft.check_in(seconds)
            return self._state(DeliveryState.PENDING, reason, words, number)
        start = tries.next_start()
        if cause and start and start > self.draft.now:
            self.draft.check_in(self.draft.until(start))
            return self._state(
                DeliveryState.PENDING, cause.code, retrying.later(cause.advice, number + 1, start), number
            )
        return self._begin(tries, number, retrying.underway(cause.advice, number + 1) if cause else None, old)

    def _underway(self, tries: Tries, job: ObservedJob, number: int, old: Any) -> DeliveryStatus:
        self.draft.await_start(job)
        if tries.obstacle:
            self.draft.check_in(RECHECK_SECONDS)
            return self._state(DeliveryState.PENDING, tries.obstacle.reason, tries.obstacle.message, number)
        if number > 1 and old and old.get("message"):
            message = retrying.underway(retrying.cut(old["message"]), number)
            return self._state(DeliveryState.DELIVERING, old.get("reason") or Reason.DELIVERING, message, number)
        return self._state(DeliveryState.DELIVERING, Reason.DELIVERING, "The files are being copied.", number)

    def _obstacles(self) -> Iterator[tuple[AnyReason, str, float | None]]:
        """What must change before a Job can begin: reason, message, seconds until it is looked at again."""
        if self.spec.approval.state == "Rejected":
            yield Reason.MODEL_VERSION_REJECTED, "A rejected version is not delivered: approve it first.", None
        yield from ((bounds.CODE, words, None) for words in bounds.delivery(self.parcel.target, self.platform.bounds))
        claim = target_claim(self.parcel.target)
        if claim in self.seen.missing_claims:
            message = f"PersistentVolumeClaim {claim} does not exist in this namespace."
            yield Reason.PVC_NOT_FOUND, message, RECHECK_SECONDS

    def _begin(self, tries: Tries, number: int, again: str | None, old: Any) -> DeliveryStatus:
        objects = deliver(self.draft.body, self.spec, self.parcel, number + 1, self.platform, signed=self.seen.signed)
        refused = [r for r in self.seen.refusals if r.name in {body["metadata"]["name"] for body in objects}]
        if final := final_refusal(refused):
            return _failed(self.parcel.target, self.parcel.key, final.code, final.message, number)
        self.draft.create += objects
        self.draft.delete += [*tries.older, *([tries.job.body] if tries.job else [])]
        for refusal in refused:
            self.draft.check_in(RECHECK_SECONDS)
            return self._state(DeliveryState.PENDING, refusal.reason, refusal.message, number)
        reason = (old or {}).get("reason") if again else None
        return self._state(
            DeliveryState.DELIVERING, reason or Reason.DELIVERING, again or "The files are being copied.", number + 1
        )

    def _state(self, state: DeliveryState, reason: AnyReason | str, message: str, number: int) -> DeliveryStatus:
        return DeliveryStatus(
            uri=self.parcel.target.uri,
            key=self.parcel.key,
            state=state,
            reason=str(reason),
            message=message[:2000],
            tries=number or None,
        )

    def _delivered(self, result: DeliverResult, number: int, at: str) -> DeliveryStatus:
        return DeliveryStatus(
            uri=self.parcel.target.uri,
            key=self.parcel.key,
            state=DeliveryState.DELIVERED,
            location=result.location,
            digest=result.digest,
            size_bytes=result.size_bytes,
            uploaded_bytes=result.uploaded_bytes,
            tries=number,
            delivered_at=at,
        )


def _failed(target: Delivery, key: str, code: FailureCode, message: str, number: int = 0) -> DeliveryStatus:
    return DeliveryStatus(
        uri=target.uri,
        key=key,
        state=DeliveryState.FAILED,
        reason=str(code),
        message=message[:2000],
        tries=number or None,
    )
