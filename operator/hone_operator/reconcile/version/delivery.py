"""Deliveries of a ModelVersion: one Job for each attempt at each entry; none of them changes whether it is Ready."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from hone_api.base.schemes import claim_of
from hone_api.blocks.delivery import Delivery
from hone_api.contract.report import DeliverResult
from hone_api.kinds.modelversion import DeliveryStatus, ModelVersionSpec
from hone_api.words.failures import FailureCode
from hone_api.words.states import ApprovalState, ConditionType, DeliveryState, Reason
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.version.deliver import COMPONENT, Parcel, UndeliverableError, deliver
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.core import bounds
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.reconcile.core.outcome_builder import VersionBuilder, as_json
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.staging.entry_jobs import (
    MAX_MESSAGE,
    RECHECK_SECONDS,
    EntryJobs,
    EntryMemory,
    EntryObstacle,
    EntryProgress,
    EntryStage,
    retry_request,
    set_condition,
)
from hone_operator.reconcile.staging.observed import of_component
from hone_operator.reconcile.staging.staging_attempts import StagingAttempts, observe_attempts
from hone_operator.reconcile.version import delivery_progress

STATES = {
    EntryStage.PENDING: DeliveryState.PENDING,
    EntryStage.WORKING: DeliveryState.DELIVERING,
    EntryStage.FAILED: DeliveryState.FAILED,
}


@dataclass(frozen=True)
class ObservedDeliveries:
    """What the decision depends on."""

    jobs: Sequence[ObservedJob] = ()
    missing_claims: frozenset[str] = frozenset()
    """Claims that are named and do not exist."""
    refusals: Sequence[Refusal] = ()
    signed: bool = False
    """Whether the artifacts have a signature, which is delivered with them."""
    reports: Mapping[str, Latest] = field(default_factory=dict)
    """What pods report, by uid of their Job."""


def reconcile(builder: VersionBuilder, spec: ModelVersionSpec, seen: ObservedDeliveries, platform: Platform) -> None:
    """The next step of each delivery of a verified ModelVersion; sets status.deliveries and condition Delivered."""
    before = {entry["key"]: entry for entry in builder.old.get("deliveries") or ()}
    jobs = of_component(seen.jobs, COMPONENT)
    states, keys = [], set()
    for target in spec.deliveries or ():
        try:
            parcel = Parcel.of(spec, target, platform)
        except (UndeliverableError, names.InvalidReferenceError) as error:
            refused = EntryProgress(EntryStage.FAILED, FailureCode.DESTINATION_REFUSED, str(error), 0)
            states.append(_status(target, names.digest(target.to_json()), refused))
            continue
        keys.add(parcel.key)
        own = [job for job in jobs if _key(job) == parcel.key]
        old = before.get(parcel.key)
        if old and old["state"] == DeliveryState.DELIVERED:
            builder.delete += [job.body for job in own]  # the status has all they say
            states.append(DeliveryStatus.model_validate(old))
            continue
        states.append(_ParcelWork(builder, spec, parcel, seen, platform).step(own, old))
    dropped = [job for job in jobs if _key(job) not in keys]
    builder.delete += [job.body for job in dropped if not _is_ending(job)]
    states += _arrived(dropped, before)
    builder.put(retried=retry_request(builder))
    builder.put(deliveries=[as_json(state) for state in states] or None)
    places = "; ".join(state.location or state.uri for state in states)
    summary = f"Every byte arrived at {places}."
    set_condition(builder, ConditionType.DELIVERED, states, Reason.DELIVERING, Reason.DELIVERED, summary)


def _arrived(dropped: Sequence[ObservedJob], before: Mapping[str, Any]) -> Iterator[DeliveryStatus]:
    """What Jobs delivered until their entries were dropped, e.g. because an approval was withdrawn as they ended.

    A Model that still has such an entry keeps it, once the status says that it was delivered.
    """
    for key in dict.fromkeys(map(_key, dropped)):
        old, attempts = before.get(key), observe_attempts([job for job in dropped if _key(job) == key])
        result = attempts.result_of(DeliverResult)
        if result and attempts.job and not (old and old["state"] == DeliveryState.DELIVERED):
            number = max(attempts.number, EntryMemory.of(old).number)
            with suppress(ValidationError):  # of a Job of an earlier operator, or one that somebody forged
                uri = old["uri"] if old else _named(attempts.job).uri
                yield _delivered(uri, key, result, number, attempts.job.ended_at)


def _named(job: ObservedJob) -> Delivery:
    """The entry for which a Job was made, by what it says itself."""
    return Delivery.model_validate({"uri": (job.body["metadata"].get("annotations") or {}).get(names.DELIVERY)})


def _is_ending(job: ObservedJob) -> bool:
    """Whether the pod has left a result that the Job does not report yet: it is not stopped, its end comes soon."""
    return not job.finished and job.result() is not None


def waiting(builder: VersionBuilder, spec: ModelVersionSpec, jobs: Sequence[ObservedJob], why: str) -> None:
    """Set condition Delivered of a version that is not to be delivered yet, and stop Jobs that deliver it. What was
    delivered stays in the status."""
    builder.delete += [job.body for job in of_component(jobs, COMPONENT) if not (job.finished or _is_ending(job))]
    entries: Any = builder.old.get("deliveries")
    held = {"state": str(DeliveryState.PENDING), "reason": str(Reason.WAITING), "message": why[:MAX_MESSAGE]}
    if entries:
        builder.put(deliveries=[_held(entry, held) for entry in entries])
    if spec.deliveries:
        builder.conditions.set(ConditionType.DELIVERED, False, Reason.WAITING, why)


def _held(entry: Any, held: dict[str, str]) -> Any:
    """An entry of the status, with other words if its Job was stopped."""
    if entry["state"] != DeliveryState.DELIVERING:
        return entry
    return {name: value for name, value in entry.items() if name != "progress"} | held


@dataclass(frozen=True)
class _ParcelWork:
    """The delivery of one parcel, as the attempts at it need it."""

    builder: VersionBuilder
    spec: ModelVersionSpec
    parcel: Parcel
    seen: ObservedDeliveries
    platform: Platform
    working = (Reason.DELIVERING, "The files are being copied.")

    def step(self, jobs: Sequence[ObservedJob], old: Any) -> DeliveryStatus:
        """Its state, after its next Job was requested if one is due."""
        attempts, before = observe_attempts(jobs), EntryMemory.of(old)
        if (result := attempts.result_of(DeliverResult)) and attempts.job:
            self.builder.delete += [job.body for job in jobs]
            number = max(attempts.number, before.number)
            return _delivered(self.parcel.target.uri, self.parcel.key, result, number, attempts.job.ended_at)
        entry_jobs = EntryJobs(self.builder, self, self.platform.trainer.start_timeout_seconds, self.seen.refusals)
        now = _status(self.parcel.target, self.parcel.key, entry_jobs.step(attempts, before))
        return self._with_progress(now, attempts, old) if now.state == DeliveryState.DELIVERING else now

    def _with_progress(self, now: DeliveryStatus, attempts: StagingAttempts, old: Any) -> DeliveryStatus:
        """With how far it is. No event says so: the pod's reports are looked at again and again."""
        if not self.platform.progress_url:
            return now
        self.builder.check_in(RECHECK_SECONDS)
        report = (
            self.seen.reports.get(attempts.job.body["metadata"]["uid"]) if attempts.active and attempts.job else None
        )
        shown = delivery_progress.read(report)
        if shown is None:  # e.g. after a restart of the operator, until the pod's next report
            shown = delivery_progress.remembered_progress(old, now.tries)
        message = f"The files are being copied: {shown.summary}." if shown and now.reason == self.working[0] else None
        return now.model_copy(update={"progress": shown, **({"message": message} if message else {})})

    def obstacles(self) -> Iterator[EntryObstacle]:
        """What must change before a Job can begin."""
        if self.spec.approval.state == ApprovalState.REJECTED:
            words = "A rejected version is not delivered: approve it first."
            yield EntryObstacle(Reason.MODEL_VERSION_REJECTED, words, stops=True)
        elif self.platform.tenants.deliveries != "Any" and self.spec.approval.state != ApprovalState.APPROVED:
            name = self.builder.body["metadata"]["name"]
            words = f"It waits for an approval, without which nothing is delivered here: hone approve {name}."
            yield EntryObstacle(Reason.WAITING, words, stops=True)
        for words in bounds.delivery(self.parcel.target, self.platform.tenants):
            yield EntryObstacle(bounds.CODE, words)
        claim = claim_of(self.parcel.target.uri)
        if claim in self.seen.missing_claims:
            message = f"PersistentVolumeClaim {claim} does not exist in this namespace."
            yield EntryObstacle(Reason.PVC_NOT_FOUND, message, RECHECK_SECONDS)

    def objects(self, number: int) -> list[dict[str, Any]]:
        """The Job of attempt `number`, and what it needs."""
        return deliver(self.builder.body, self.spec, self.parcel, number, self.platform, signed=self.seen.signed)


def _key(job: ObservedJob) -> str:
    """Of the parcel that a Job delivers."""
    return str(job.body["metadata"]["labels"].get(names.CONTENT))


def _delivered(uri: str, key: str, result: DeliverResult, number: int, at: str) -> DeliveryStatus:
    return DeliveryStatus(
        uri=uri,
        key=key,
        state=DeliveryState.DELIVERED,
        location=result.location,
        digest=result.digest,
        size_bytes=result.size_bytes,
        uploaded_bytes=result.uploaded_bytes,
        tries=number,
        delivered_at=at,
    )


def _status(target: Delivery, key: str, now: EntryProgress) -> DeliveryStatus:
    return DeliveryStatus(
        uri=target.uri,
        key=key,
        state=STATES[now.stage],
        reason=str(now.reason),
        message=now.message[:MAX_MESSAGE],
        tries=now.number or None,
    )
