"""Staging by a CPU Job before any GPU is requested: one Job for all FineTuneJobs that need the same."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from hone_api.base.meta import ApiModel
from hone_api.words.failures import Retry
from hone_api.words.states import AnyReason, ConditionType, Reason
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.shared import Shared
from hone_operator.desired.store.store import claim
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.reconcile.core.outcome_builder import OutcomeBuilder
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.upstream import Wait
from hone_operator.reconcile.staging import retrying
from hone_operator.reconcile.staging.staging_attempts import StagingAttempts, observe_attempts, start_timeout_cause
from hone_operator.times import parse_time

RECHECK_SECONDS = 15.0
CLAIM_SECONDS = 1.0
FRESH = timedelta(minutes=10)
"""How long before a FineTuneJob's creation a branch may have been resolved for it."""
R = TypeVar("R", bound=ApiModel)


@dataclass(frozen=True)
class StoreState:
    """The observed state of the namespace's store."""

    claim: Mapping[str, Any] | None = None
    """Its claim; None: it does not exist yet."""
    jobs: Sequence[ObservedJob] = ()
    """Shared Jobs of all the work that this FineTuneJob needs."""
    refusals: Sequence[Refusal] = ()
    """What the API server refused when this decision was carried out a moment ago."""
    hold: Wait | None = None
    """Why no new attempt begins now; None: it may."""

    def of(self, shared: Shared) -> list[ObservedJob]:
        """The Jobs of one piece of work."""
        return [j for j in self.jobs if j.body["metadata"]["labels"].get(names.CONTENT) == shared.key]


@dataclass(frozen=True)
class Staging(Generic[R]):
    """One piece of shared work, as one FineTuneJob sees it."""

    shared: Shared
    condition: ConditionType
    result: type[R]
    """The type of its Job's result."""
    what: str
    """For messages: what is staged."""
    make: Callable[[Mapping[str, Any], int], list[dict[str, Any]]]
    """The objects of an attempt, from the store's claim and its number."""
    underway: Reason = Reason.FETCHING
    """Reason of the condition while nothing is wrong."""
    rows: str = ""
    """Label `names.ROWS` of its Jobs. A final failure of one that tried other rows does not count: they may be why."""


def stage(builder: OutcomeBuilder, work: Staging[R], seen: StoreState, platform: Platform) -> R | Cause | None:
    """The result; the cause if there will be none; or None if it is not ready: then the condition says why, and an
    attempt is requested if one is due."""
    jobs, created = seen.of(work.shared), _created(builder)
    attempts = _current(observe_attempts(jobs), created, work)
    before = _current(observe_attempts([j for j in jobs if j is not attempts.job]), created, work)
    for observed in (attempts, before):
        if observed.ending and isinstance(observed.ending.result, work.result):
            builder.delete += observed.older
            return observed.ending.result
    cause = attempts.cause or start_timeout_cause(attempts, builder.now, platform.trainer.start_timeout_seconds)
    if cause and (cause.retry is Retry.NEVER or attempts.cause is None):
        builder.conditions.set(work.condition, False, cause.code, cause.message)
        return cause
    if attempts.active and attempts.job:
        builder.await_start(attempts.job)
    start = attempts.next_start()
    due = not attempts.active and (start is None or start <= builder.now)
    if due and seen.hold is None:
        _begin(builder, work, attempts, seen.claim, platform)
    elif start:
        builder.check_in(builder.until(start))
    if attempts.obstacle:
        builder.check_in(RECHECK_SECONDS)
    builder.conditions.set(work.condition, False, *_why(work, seen.hold, attempts, cause or before.cause, due))
    if due and seen.hold is None:
        for refusal in seen.refusals:
            message = f"{refusal.kind} {refusal.name}: {refusal.message}"
            builder.conditions.set(work.condition, False, refusal.reason, message)
            builder.check_in(RECHECK_SECONDS)
    return None


def _created(builder: OutcomeBuilder) -> datetime:
    """When the FineTuneJob was created.

    If the clock was set back since, no Job could be young enough for it, and one would follow the other without end.
    """
    created = parse_time(builder.body["metadata"]["creationTimestamp"])
    return builder.now - FRESH if created > builder.now + FRESH else created


def _current(attempts: StagingAttempts, created: datetime, work: Staging[R]) -> StagingAttempts:
    """The newest attempt, as far as it counts for a FineTuneJob that was created then.

    An earlier failure does not count, since its cause may have been fixed, nor does one that concerns others. A branch
    that was resolved long before does not count either.
    """
    if attempts.job is None or attempts.active:
        return attempts
    if attempts.cause:
        own = attempts.job.body["metadata"]["labels"].get(names.ROWS, "") == work.rows
        current = parse_time(attempts.job.ended_at) >= created and (own or attempts.cause.retry is not Retry.NEVER)
    else:
        began = parse_time(attempts.job.body["metadata"]["creationTimestamp"])
        current = work.shared.lasting or began + FRESH >= created
    return attempts if current else replace(attempts, ending=None, cause=None)


def _begin(
    builder: OutcomeBuilder,
    work: Staging[R],
    attempts: StagingAttempts,
    store: Mapping[str, Any] | None,
    platform: Platform,
) -> None:
    """Request the next attempt; before it, the claim that owns it."""
    if store is None:
        builder.create.append(claim(builder.body["metadata"]["namespace"], platform))
        builder.check_in(CLAIM_SECONDS)
        return
    builder.create += work.make(store, attempts.number + 1)
    builder.delete += (
        attempts.older
    )  # the last one stays until there is a result, so that all waiting jobs see how it ended


def _why(
    work: Staging[R], hold: Wait | None, attempts: StagingAttempts, cause: Cause | None, due: bool
) -> tuple[AnyReason, str]:
    """Reason and message of the condition. `cause` is why the last ended attempt failed; its code is the reason until
    there is a result."""
    upcoming, start, obstacle = attempts.number + 1, attempts.next_start(), attempts.obstacle
    if cause and attempts.active:
        words = cause.advice
        if obstacle:
            return cause.code, retrying.held_up(words, attempts.number, obstacle.message)
        return cause.code, retrying.underway(words, attempts.number)
    if cause and start and not due:
        return cause.code, retrying.later(cause.advice, upcoming, start)
    if cause and hold:
        return cause.code, retrying.held_up(cause.advice, upcoming, hold.message)
    if cause:
        return cause.code, retrying.underway(cause.advice, upcoming)
    if obstacle:
        return obstacle.reason, obstacle.message
    if hold and not attempts.active:
        return hold.reason, hold.message
    return work.underway, f"{work.what} being staged in the store."
