"""When the attempts of a run held GPUs. Pure.

An attempt holds its GPUs from when the pod of rank 0 has a node until the attempt ends. The time in a queue is free.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from hone_api.base.times import read_time
from hone_api.words.phases import OTHER, QUEUED, SCHEDULED, SUSPENDED, seconds_of
from hone_api.words.states import AttemptOutcome

WITHOUT_NODES = (QUEUED, SCHEDULED, SUSPENDED)
"""Phases in which an attempt holds no GPU."""
LONGEST = 10**9
"""Seconds: more than that nobody measured, and a date cannot hold."""
STOPPED = frozenset({AttemptOutcome.SUSPENDED, AttemptOutcome.REQUEUED})
"""Outcomes of an attempt whose pods were asked to stop, and start again later."""
Span = tuple[datetime, datetime, int]
"""From when until when, and how many GPUs."""


def seconds_held(job: Mapping[str, Any], now: datetime, since: datetime | None = None) -> float:
    """GPU seconds of all attempts of a job.

    Args:
        since: what was held before does not count.
    """
    spans = spans_on_nodes(job, now)
    return sum(max(0.0, (end - max(start, since or start)).total_seconds()) * gpus for start, end, gpus in spans)


def spans_on_nodes(job: Mapping[str, Any], now: datetime) -> Iterator[Span]:
    """Each attempt that has, or had, its nodes; oldest first."""
    status = job.get("status") or {}
    attempts: list[Mapping[str, Any]] = status.get("attempts") or []
    if status.get("earlierAttempts") and attempts:  # of the oldest of very many, the time alone is known
        begin, end = read_time(status.get("startTime")), read_time(attempts[0].get("startTime"))
        if begin and end:
            yield begin, end, gpus_of(job)
    last = read_time(status.get("completionTime")) or now
    for record in attempts:
        start = read_time(record.get("startTime"))
        if start and start <= now and (span := _span(record, start, read_time(record.get("endTime")) or last)):
            yield *span, gpus_of(job, record)


def has_begun(record: Mapping[str, Any]) -> bool:
    """Whether an attempt is known to have had pods with a node."""
    return "startStep" in record or bool(seconds_of(record).keys() - {QUEUED, SCHEDULED, SUSPENDED, OTHER})


def gpus_of(body: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> int:
    """GPUs of one attempt of a FineTuneJob; 0 on CPUs.

    Args:
        record: of the attempt, which may have fewer nodes than others; None: one with all nodes.
    """
    resources = body["spec"].get("resources") or {}
    all_nodes, each = resources.get("nodes", 1), resources.get("gpusPerNode", 0)
    nodes = record.get("nodes", all_nodes) if record else all_nodes
    return nodes * each if isinstance(nodes, int) and isinstance(each, int) else 0


def _span(record: Mapping[str, Any], start: datetime, end: datetime) -> tuple[datetime, datetime] | None:
    """From when until when an attempt had its nodes; None: it waits for them."""
    seconds = seconds_of(record)
    if "endTime" not in record and not has_begun(record) and SCHEDULED not in seconds:
        return None
    start += timedelta(seconds=min(LONGEST, sum(seconds.get(phase, 0) for phase in WITHOUT_NODES)))
    if record.get("outcome") in STOPPED:  # the rest of its time is the suspension
        reported = sum(value for phase, value in seconds.items() if phase not in (*WITHOUT_NODES, OTHER))
        end = min(end, start + timedelta(seconds=min(LONGEST, reported)))
    return start, end
