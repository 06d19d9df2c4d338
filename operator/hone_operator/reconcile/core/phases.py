"""Where the time of an attempt went: from pods, reports and the termination message to status.attempts[].phaseSeconds.

What the status has only grows, so a restart of the operator, a lost report or a deleted pod loses nothing that was
written before. Rank 0 speaks for the attempt.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from hone_api.base.meta import MAX_COUNT
from hone_api.contract.status_json import AttemptJson
from hone_api.words.phases import (
    BEFORE_FIRST_STEP,
    FIRST_STEP,
    IMAGE,
    LOADING,
    MEASURED,
    OF_STAGE,
    OTHER,
    PHASES,
    QUEUED,
    SCHEDULED,
    SUSPENDED,
    TRAINING,
    seconds_of,
)
from hone_api.words.states import AttemptOutcome
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.core import idle
from hone_operator.reconcile.core.conditions import KubeCondition, condition
from hone_operator.reconcile.core.pod_state import PodState
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.times import read_time

Seconds = dict[str, int]
"""Whole seconds by phase."""


def record_phases(record: AttemptJson, job: ObservedJob | None, report: Latest | None, gpus: int) -> bool:
    """Record what pods and trainer show so far.

    Args:
        report: the newest report, of any attempt.
        gpus: of all pods of the attempt.

    Returns:
        Whether the trainer has left its last word about this attempt.
    """
    pods = job.states if job else ()
    seconds = seconds_of(record)
    if "idleSince" not in record:
        for phase, value in _before_containers(record, job).items():
            seconds.setdefault(phase, value)
    last_word = _last_word(pods) if job and job.finished else {}
    reported = report.phases if report and report.attempt == record["number"] else {}
    for source in (reported, last_word):
        for phase, measured in source.items():
            if phase in MEASURED:
                seconds[phase] = max(seconds.get(phase, 0), round(measured))
    _put(record, seconds, gpus, _alone(pods))
    return bool(last_word)


def close(record: AttemptJson, report: Latest | None, gpus: int, *, killed: bool, waited: bool) -> None:
    """Name the rest of the time of an attempt that has ended, so that its phases add up to it.

    Args:
        report: the newest report, of any attempt.
        killed: whether it ran and left no last word: the time since its last report counts to the phase that it was
            in.
        waited: whether its pods waited to the end, for a node or a container, unless they are known to have had it.
    """
    seconds = seconds_of(record)
    rest = _time_of(record) - sum(seconds.values())
    for phase in (QUEUED, SUSPENDED):  # the pods may have trained for a moment that was counted as a wait
        surplus = min(seconds.get(phase, 0), max(0, -rest))
        if surplus:
            seconds[phase] -= surplus
            rest += surplus
    if rest > 0 and record["outcome"] == AttemptOutcome.RESIZED:  # its pods waited for others to find a node
        seconds[SCHEDULED] = seconds.get(SCHEDULED, 0) + rest
        rest = 0
    if rest > 0 and killed:
        report = report if report and report.attempt == record["number"] else None
        phase, silent = _unfinished(seconds, report, record["endTime"], waited)
        silent = min(rest, silent)
        seconds[phase] = seconds.get(phase, 0) + silent
        rest -= silent
    if rest > 0:
        seconds[OTHER] = seconds.get(OTHER, 0) + rest
    _put(record, seconds, gpus, 0)


def _put(record: AttemptJson, seconds: Seconds, gpus: int, alone: int) -> None:
    """Write phases in their order, and the seconds that were held before the first step.

    Args:
        alone: seconds that the container of rank 0 started after the first one.
    """
    if not seconds:
        return
    ordered = {phase.name: seconds[phase.name] for phase in PHASES if phase.name in seconds}
    idle.put_seconds(record, ordered)
    if LOADING in seconds:
        held = max(1, gpus) * (alone + sum(seconds.get(phase, 0) for phase in BEFORE_FIRST_STEP))
        record["heldSecondsBeforeFirstStep"] = max(held, record.get("heldSecondsBeforeFirstStep", 0))


def _before_containers(record: AttemptJson, job: ObservedJob | None) -> Seconds:
    """The wait in a queue, for a node and for the image, as far as the Job and the pod of rank 0 show it."""
    start = read_time(record["startTime"])
    admitted = _admitted(job) if job else None
    if job is None or start is None or admitted is None:
        return {}
    queued = max(0, _between(start, admitted) - idle.admitted_seconds(job))
    seconds = {QUEUED: queued} if job.queue or queued > 1 else {}  # a second passes while a Job is created
    first = next((pod for pod in job.states if pod.rank == 0), None)
    at = read_time(first.scheduling.since or "") if first and first.scheduling.is_true else None
    if first is None or at is None:
        return seconds
    seconds[SCHEDULED] = _between(admitted if seconds else start, at)
    if first.started_at:
        seconds[IMAGE] = _between(at, first.started_at)
    return seconds


def _admitted(job: ObservedJob) -> datetime | None:
    """When the queue let a Job start; without Kueue, when it was created."""
    if not job.queue:
        return read_time(job.body["metadata"].get("creationTimestamp", ""))
    admitted = condition(job.workload or {}, KubeCondition.ADMITTED)
    return read_time(admitted.get("lastTransitionTime", "")) if admitted.get("status") == "True" else None


def _alone(pods: Sequence[PodState]) -> int:
    """Seconds that other containers ran before the one of rank 0."""
    starts = [(pod.started_at, pod.rank) for pod in pods if pod.started_at]
    zero = min((start for start, rank in starts if rank == 0), default=None)
    return _between(min(starts)[0], zero) if zero else 0


def _last_word(pods: Sequence[PodState]) -> Mapping[str, float]:
    """Seconds by phase in the termination message of rank 0; empty if it left none."""
    endings = [pod.ending for pod in pods if pod.rank == 0]
    return next((ending.phases for ending in endings if ending and ending.phases), {})


def _unfinished(seconds: Seconds, report: Latest | None, ended_at: str, waited: bool) -> tuple[str, int]:
    """The phase in which an attempt ended whose trainer did not report its end, and for how long at most."""
    if LOADING in seconds:
        phase, end = OF_STAGE.get(report.progress.stage or "", OTHER) if report else OTHER, read_time(ended_at)
        if phase == TRAINING and FIRST_STEP not in seconds:
            phase = FIRST_STEP
        return phase, _between(report.received, end) if report and end else 0
    if waited and SCHEDULED not in seconds:
        return SCHEDULED, MAX_COUNT
    return (IMAGE if waited and IMAGE not in seconds else OTHER), MAX_COUNT


def _time_of(record: AttemptJson) -> int:
    """Seconds from start to end of an attempt that has ended; 0 if one of them cannot be read."""
    start, end = read_time(record["startTime"]), read_time(record["endTime"])
    return _between(start, end) if start and end else 0


def _between(start: datetime, end: datetime) -> int:
    return max(0, round((end - start).total_seconds()))
