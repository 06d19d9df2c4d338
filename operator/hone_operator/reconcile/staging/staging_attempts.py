"""Work outside a run (materialize, fetch, verify): one Job for each attempt, and when to retry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hone_api.contract.termination import TerminationMessage
from hone_api.words.failures import FailureCode, Retry
from hone_operator.desired.core import names
from hone_operator.reconcile.core import queueing
from hone_operator.reconcile.core.failures import Cause, root_cause
from hone_operator.reconcile.core.outcome import backoff
from hone_operator.reconcile.core.pods import ObservedJob, Waiting, waiting
from hone_operator.times import parse_time

Result = TypeVar("Result")


@dataclass(frozen=True)
class StagingAttempts:
    """The newest attempt at one piece of work, and how it ended."""

    number: int
    """0: there is none yet."""
    job: ObservedJob | None
    older: Sequence[Mapping[str, Any]]
    """Jobs of earlier attempts, to be deleted once a newer one exists."""
    ending: TerminationMessage | None = None
    cause: Cause | None = None
    obstacle: Waiting | None = None

    @property
    def active(self) -> bool:
        """Whether its Job has not ended."""
        return self.job is not None and not self.job.finished

    def result_of(self, kind: type[Result]) -> Result | None:
        """What its Job left, if it ended well with a result of this kind."""
        result = self.ending.result if self.ending and self.job and not self.cause else None
        return result if isinstance(result, kind) else None

    def next_start(self) -> datetime | None:
        """When the next attempt may start; None if the cause says that another attempt cannot help."""
        if self.cause is None or self.job is None or self.cause.retry is Retry.NEVER:
            return None
        return parse_time(self.job.ended_at) + timedelta(seconds=backoff(self.number))


def observe_attempts(jobs: Sequence[ObservedJob]) -> StagingAttempts:
    """The state of the newest of these Jobs, which all belong to one piece of work."""
    ordered = sorted(jobs, key=lambda j: j.label(names.STAGING_ATTEMPT))
    if not ordered:
        return StagingAttempts(0, None, ())
    job, older = ordered[-1], [j.body for j in ordered[:-1]]
    number = job.label(names.STAGING_ATTEMPT)
    if not job.finished:
        return StagingAttempts(number, job, older, obstacle=queueing.wait(job) or waiting(job))
    ending = job.result()
    if job.succeeded and ending:
        return StagingAttempts(number, job, older, ending=ending)
    if job.succeeded:
        cause = Cause(FailureCode.RESULT_MISSING, f"Job {job.name} succeeded, but its pod left no result.")
        return StagingAttempts(number, job, older, cause=cause)
    return StagingAttempts(number, job, older, ending=ending, cause=root_cause(job))


def remember(attempts: StagingAttempts, cause: Cause | None) -> StagingAttempts:
    """The newest attempt with the cause that the status has of it, once its pod is gone: then the Job alone says less.

    Args:
        cause: what the status reports of an attempt; None: it reports none.
    """
    forgotten = attempts.cause is not None and attempts.job is not None and not attempts.job.states
    return replace(attempts, cause=cause) if cause and forgotten else attempts


def start_timeout_cause(attempts: StagingAttempts, now: datetime, seconds: float) -> Cause | None:
    """The cause if the newest attempt's pod could not start for too long."""
    obstacle = attempts.obstacle
    if not obstacle or not obstacle.code or not obstacle.since:
        return None
    if (now - obstacle.since).total_seconds() < seconds:
        return None
    return Cause(obstacle.code, obstacle.message)
