"""What a CPU Job stages in the store before any GPU is asked for: one Job a try, and the condition that tells of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hone_api.failures import Retry
from hone_api.meta import ApiModel
from hone_operator.desired.platform import Platform
from hone_operator.reconcile.draft import Draft
from hone_operator.reconcile.failures import Cause
from hone_operator.reconcile.pods import ObservedJob
from hone_operator.reconcile.tries import observe_tries, timed_out

RECHECK_SECONDS = 15.0
R = TypeVar("R", bound=ApiModel)


@dataclass(frozen=True)
class Staging(Generic[R]):
    """One piece of this work."""

    condition: str
    result: type[R]
    """What its Job leaves."""
    underway: str
    """Message of the condition meanwhile."""
    make: Callable[[int], list[dict[str, Any]]]
    """The objects of a try, by its number."""


def stage(
    draft: Draft, wanted: Staging[R], jobs: Sequence[ObservedJob], *, suspend: bool, platform: Platform
) -> R | Cause | None:
    """The result of its Jobs; why there will be none; or None: not yet, the condition says why, a try is asked for
    when one is due.

    Args:
        jobs: all of this piece of work.
        suspend: whether no new try begins.
    """
    tries = observe_tries(jobs)
    if tries.ending and isinstance(tries.ending.result, wanted.result):
        return tries.ending.result
    cause = tries.cause or timed_out(tries, draft.now, platform.start_timeout_seconds)
    if cause and (cause.retry is Retry.NEVER or tries.cause is None):
        draft.conditions.set(wanted.condition, False, cause.code, cause.message)
        return cause
    if tries.active and tries.job:
        draft.await_start(tries.job)
    start = tries.next_start()
    due = tries.number == 0 or (start is not None and start <= draft.now)
    if due and not suspend:
        draft.create += wanted.make(tries.number + 1)
        draft.delete += [j for j in (*tries.older, *([tries.job.body] if tries.job else []))]
    elif start:
        draft.check_in(draft.until(start))
    if cause:
        draft.conditions.set(wanted.condition, False, cause.code, f"{cause.advice} It is tried again.")
    elif tries.obstacle:
        draft.conditions.set(wanted.condition, False, tries.obstacle.reason, tries.obstacle.message)
        draft.check_in(RECHECK_SECONDS)
    elif tries.number > 1 and draft.conditions.failed_before(wanted.condition):
        draft.conditions.keep(wanted.condition, "")
    else:
        draft.conditions.set(wanted.condition, False, "Fetching", wanted.underway)
    return None
