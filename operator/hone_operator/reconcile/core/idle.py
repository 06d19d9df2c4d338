"""How long an attempt has no pods after it had some: it waits in its queue again, or the user has suspended it.

`idleSince` of its record is the time up to which its phases count that. The seconds before it are in `queued` and
`suspended`, so a restart of the operator loses nothing, and no status is written for each second that passes.

Kueue's `accumulatedPastExecutionTimeSeconds` is a bound for these seconds and shows a wait that nobody saw. It cannot
replace them: it is a sum that Kueue clears at the end of its own time limit, and it has neither suspensions, nor waits
in the line of a namespace, nor the time from an admission until the new pods run.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import cast

from hone_api.contract.status_json import AttemptJson, AttemptPhasesJson
from hone_api.words.phases import IMAGE, QUEUED, SCHEDULED, SUSPENDED, seconds_of
from hone_api.words.states import AttemptOutcome
from hone_operator.reconcile.core import queueing
from hone_operator.reconcile.core.conditions import KubeCondition, condition
from hone_operator.reconcile.core.pod_state import PodState
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.times import format_time, read_time

COUNT_EVERY = timedelta(minutes=10)
"""How often a wait in a queue is counted while it lasts: each count is a write of the status."""
LONGEST_STOP = timedelta(minutes=10)
"""How long pods may need to stop, where nothing says when they had stopped."""

ROUNDING = 30
"""Seconds: Kueue rounds each admission down, so a smaller difference says nothing."""


def follow(record: AttemptJson, job: ObservedJob, now: datetime, *, suspended: bool) -> None:
    """Count what has passed without pods. The outcome of the record is still that of the last look.

    Args:
        suspended: whether the user wants the run to be suspended.
    """
    was_suspended = record["outcome"] == AttemptOutcome.SUSPENDED
    if job.finished:
        if "idleSince" in record and not was_suspended:
            _start_again(record, job)
        return
    if was_suspended and not suspended:
        _count(record, SUSPENDED, now)
        _set(record, now)
    if not (suspended and was_suspended):
        _catch_up(record, job, now)
    if suspended and not was_suspended:
        _suspend(record, job, now)
    if suspended and "idleSince" not in record:
        _set(record, _stopped(job, now))


def count_queue(record: AttemptJson, now: datetime) -> None:
    """Count a wait in a queue, or in the line of a namespace, that ends now."""
    if "idleSince" not in record and QUEUED not in seconds_of(record):
        _set(record, read_time(record["startTime"]))
    _count(record, QUEUED, now)


def close(record: AttemptJson, before: str) -> None:
    """Count the rest of an attempt that ended while it had no pods.

    Args:
        before: the outcome of the record before it ended.
    """
    end = read_time(record.get("endTime"))
    if "idleSince" in record and end:
        queued = before in (AttemptOutcome.REQUEUED, AttemptOutcome.RESIZED) or SCHEDULED not in seconds_of(record)
        phase = QUEUED if queued else SCHEDULED
        _count(record, SUSPENDED if before == AttemptOutcome.SUSPENDED else phase, end)
    record.pop("idleSince", None)


def look_again_in(record: AttemptJson | None, job: ObservedJob | None, now: datetime) -> float | None:
    """Seconds until a wait in a queue is counted again; None: the attempt does not wait."""
    if record is None or job is None or not queueing.waits_in_queue(job):
        return None
    since = read_time(record.get("idleSince"))
    return (since + COUNT_EVERY - now).total_seconds() if since else None


def admitted_seconds(job: ObservedJob | None) -> int:
    """How long the attempt had quota before Kueue took it back, over all times; 0 if Kueue does not say."""
    past = (((job and job.workload) or {}).get("status") or {}).get("accumulatedPastExecutionTimeSeconds")
    return past if isinstance(past, int) and past > 0 else 0


def queued_after(begin: datetime, record: AttemptJson, now: datetime) -> int:
    """Seconds that an attempt waited in a queue after the start of the run, but never more than the attempt took."""
    start = read_time(record["startTime"])
    if start is None:
        return 0
    whole = (read_time(record.get("endTime")) or now) - start
    queued = min(seconds_of(record).get(QUEUED, 0), round(whole.total_seconds()))
    return max(0, queued - max(0, round((begin - start).total_seconds())))


def _catch_up(record: AttemptJson, job: ObservedJob, now: datetime) -> None:
    """Count what has happened since the last look, at which the user had not suspended the run."""
    if queueing.waits_in_queue(job):
        _wait(record, job, now)
    elif not job.is_suspended:
        _add_unseen(record, job, _since(job.workload or {}, KubeCondition.ADMITTED))
        if "idleSince" in record:
            _start_again(record, job)


def _suspend(record: AttemptJson, job: ObservedJob, now: datetime) -> None:
    """The user suspends an attempt, which may have no pods already."""
    waits = queueing.waits_in_queue(job)
    if waits and QUEUED not in seconds_of(record):  # it has never been admitted
        record.setdefault("idleSince", record["startTime"])
    if "idleSince" in record:
        _count(record, QUEUED if waits else SCHEDULED, now, admitted_seconds(job))
        _set(record, now)


def _wait(record: AttemptJson, job: ObservedJob, now: datetime) -> None:
    """Count the wait in the queue, in steps."""
    if "idleSince" not in record:
        if QUEUED in seconds_of(record):
            stopped = _stopped(job, now)
            _add_unseen(record, job, stopped)
            _set(record, stopped)
        elif queueing.is_evicted(job):  # nobody saw when it was admitted
            _set(record, read_time(record["startTime"]))
        elif record["number"] > 1:
            start = read_time(record["startTime"])
            _set(record, start if start and start + COUNT_EVERY <= now else None)
    since = read_time(record.get("idleSince"))
    if since is None:
        return
    if since > now + COUNT_EVERY:  # the clock was ahead
        _take_back(record, since, now)
    elif (steps := (now - since) // COUNT_EVERY) > 0:
        _count(record, QUEUED, since + steps * COUNT_EVERY, admitted_seconds(job))


def _add_unseen(record: AttemptJson, job: ObservedJob, until: datetime | None) -> None:
    """Count waits between an eviction and an admission that both happened while the operator was down.

    Kueue has the time of all earlier admissions, so the rest until then was the queue's, or the user's.

    Args:
        until: when Kueue admitted the Job last, or took its quota back.
    """
    seconds, past = seconds_of(record), admitted_seconds(job)
    start = read_time(record["startTime"])
    if "idleSince" in record or QUEUED not in seconds or not past or not start or not until:
        return
    counted = past + seconds[QUEUED] + seconds.get(SUSPENDED, 0)
    unseen = round((until - start).total_seconds()) - counted
    if unseen > ROUNDING:
        put_seconds(record, {**seconds, QUEUED: seconds[QUEUED] + unseen})
        _set(record, until)


def _start_again(record: AttemptJson, job: ObservedJob) -> None:
    """Count the rest of the wait in the queue, and the way of the new pods to the start of their container."""
    admitted = condition(job.workload or {}, KubeCondition.ADMITTED)
    if admitted.get("status") == "True":
        _count(record, QUEUED, read_time(admitted.get("lastTransitionTime")), admitted_seconds(job))
    pod = _first(job, read_time(record.get("idleSince")))
    if pod is None or not pod.scheduling.is_true:
        return
    _count(record, SCHEDULED, read_time(pod.scheduling.since))
    if pod.started_at:
        _count(record, IMAGE, pod.started_at)
        record.pop("idleSince", None)


def _first(job: ObservedJob, since: datetime | None) -> PodState | None:
    """The newest pod of rank 0, without those from before the wait."""
    pods = [pod for pod in job.states if pod.rank == 0 and not pod.is_stopping]
    kept = [p for p in pods if not (p.has_ended and since and p.scheduled_at < since)]
    return max(kept, key=lambda pod: pod.created, default=None)


def _stopped(job: ObservedJob, now: datetime) -> datetime | None:
    """When the last pods of a Job that is stopped had ended; None: they may still run.

    Kueue takes Admitted back once they have ended.
    """
    admitted = condition(job.workload or {}, KubeCondition.ADMITTED)
    if admitted.get("status") == "True":
        return None
    if admitted.get("status") == "False" and (since := read_time(admitted.get("lastTransitionTime"))):
        return min(since, now)
    if not job.is_still:
        return None
    if evicted := _since(job.workload or {}, KubeCondition.EVICTED):
        return min(evicted, now)
    stopped = _since(job.body, KubeCondition.SUSPENDED)
    return min(stopped + LONGEST_STOP, now) if stopped else now


def _since(body: Mapping[str, object], type_: KubeCondition) -> datetime | None:
    """Since when a condition is True."""
    seen = condition(body, type_)
    return read_time(seen.get("lastTransitionTime")) if seen.get("status") == "True" else None


def _count(record: AttemptJson, phase: str, until: datetime | None, admitted: int = 0) -> None:
    """Count the time up to here to a phase, but never more than the attempt has had in all.

    Args:
        admitted: seconds of earlier admissions, which nobody may have seen.
    """
    since, start = read_time(record.get("idleSince")), read_time(record["startTime"])
    seconds = seconds_of(record)
    gained = 0
    if since and until and until > since:
        gained = round((until - since).total_seconds())
        if start:
            counted = max(sum(seconds.values()), admitted + seconds.get(QUEUED, 0) + seconds.get(SUSPENDED, 0))
            gained = max(0, min(gained, round((until - start).total_seconds()) - counted))
        _set(record, until)
    if since:
        put_seconds(record, {**seconds, phase: seconds.get(phase, 0) + gained})


def _take_back(record: AttemptJson, since: datetime, now: datetime) -> None:
    """Take back what was counted by a clock that was ahead."""
    seconds = seconds_of(record)
    ahead = min(seconds.get(QUEUED, 0), round((since - now).total_seconds()))
    put_seconds(record, {**seconds, QUEUED: seconds.get(QUEUED, 0) - ahead})
    _set(record, since - timedelta(seconds=ahead))


def _set(record: AttemptJson, since: datetime | None) -> None:
    if since:
        record["idleSince"] = format_time(since)


def put_seconds(record: AttemptJson, seconds: Mapping[str, int]) -> None:
    """Write the seconds of an attempt by phase."""
    record["phaseSeconds"] = cast(AttemptPhasesJson, dict(seconds))
    record.pop("phases", None)
