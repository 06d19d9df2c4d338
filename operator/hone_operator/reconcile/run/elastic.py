"""Attempts with fewer nodes than a job asks for (`resources.minNodes`): when, how many, what people read.

The plan is fixed before pods exist, so an attempt never changes its number of nodes: it ends, and the next one has
another. Kueue's own partial admission cannot serve: it chooses any number, after the plan was written, and not only
those over which the rows of a step divide evenly.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from hone_api.combinations.elastic import node_counts
from hone_api.contract.status_json import AttemptJson
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.words.states import AttemptOutcome, Reason
from hone_operator.reconcile.core import queueing
from hone_operator.reconcile.core.failures import OUT_OF_MEMORY
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.times import read_time


class Shortage(NamedTuple):
    """An attempt that cannot start as it is, while a smaller one could."""

    since: datetime
    nodes: int
    """Of the next attempt."""


def next_nodes(spec: FineTuneJobSpec, records: Sequence[AttemptJson]) -> int:
    """Nodes of the attempt that follows these: all, unless the last one ended for want of nodes."""
    last = records[-1] if records else None
    chosen = last.get("nextNodes") if last and last["outcome"] == AttemptOutcome.RESIZED else None
    return chosen if chosen in node_counts(spec.resources, spec.training) else spec.resources.nodes


def record_nodes(record: AttemptJson, nodes: int, body: Mapping[str, Any]) -> None:
    """Write the number of nodes into an attempt's record, if it can vary."""
    if (body["spec"].get("resources") or {}).get("minNodes"):
        record["nodes"] = nodes


def nodes_of(records: Sequence[AttemptJson], number: int) -> int | None:
    """Nodes of attempt `number`; None if they cannot vary."""
    return next((record.get("nodes") for record in records if record["number"] == number), None)


def continues(spec: FineTuneJobSpec, records: Sequence[AttemptJson]) -> bool:
    """Whether an attempt with all nodes follows the last of these, which ran out of memory on fewer.

    With ZeRO a rank holds less on more nodes. It counts as one of the restarts, and happens at most once for each
    number of nodes, since no later attempt has as few.
    """
    return bool(records) and _lacked_memory(spec, records[-1])


def in_words(spec: FineTuneJobSpec, records: Sequence[AttemptJson]) -> str:
    """What the next attempt does differently, for the end of a message; empty if memory did not run out on fewer
    nodes."""
    if not continues(spec, records):
        return ""
    had = _nodes(_too_few(spec, records))
    return (
        f". A rank holds more of what ZeRO divides on {had} than on {spec.resources.nodes}: the next attempt asks for "
        f"{_nodes(spec.resources.nodes)}, and none has {had} or fewer again. Raise resources.minNodes in your next job"
    )


def _too_few(spec: FineTuneJobSpec, records: Sequence[AttemptJson]) -> int:
    """Most nodes on which an attempt lacked memory; 0: none did."""
    return max((record["nodes"] for record in records if _lacked_memory(spec, record)), default=0)


def _lacked_memory(spec: FineTuneJobSpec, record: AttemptJson) -> bool:
    """Whether an attempt ran out of memory that it may have with all nodes, and not because of the rows of a pass."""
    return (
        spec.deepspeed is not None
        and spec.restarts.on_out_of_memory != "Fail"
        and record["outcome"] == AttemptOutcome.FAILED
        and record.get("reason") in OUT_OF_MEMORY
        and "microBatchSize" not in record
        and record.get("nodes", spec.resources.nodes) < spec.resources.nodes
    )


def shortage(spec: FineTuneJobSpec, records: Sequence[AttemptJson], job: ObservedJob, queues: bool) -> Shortage | None:
    """Since when an attempt waits for nodes or quota, and how many nodes the next one can have.

    Without Kueue those that the pods have already, so an attempt ends only for one that can start. Kueue does not say
    how much is free: the next smaller number is tried.

    Args:
        records: of all attempts; none gets as few nodes as one that lacked memory on them.
        queues: whether the operator reads Kueue's Workloads.

    Returns:
        None: the attempt does not wait, or a smaller one would wait as well.
    """
    too_few = _too_few(spec, records)
    smaller = [nodes for nodes in node_counts(spec.resources, spec.training) if too_few < nodes < job.nodes]
    if not smaller:
        return None
    if job.queue and job.is_suspended:
        since, fits = _waits_for_quota_since(job, queues), smaller[0]
    else:
        if _ends(job):
            return None
        state = job.body.get("status") or {}
        since = read_time(state.get("startTime") or "")
        free = job.scheduled
        fits = 0 if free >= job.nodes else next((nodes for nodes in smaller if nodes <= free), 0)
    return Shortage(since, fits) if since and fits else None


def _ends(job: ObservedJob) -> bool:
    """Whether an attempt that had its nodes is ending: its pods go one by one, until the Job says how it ended."""
    state = job.body.get("status") or {}
    if state.get("succeeded") or state.get("failed"):
        return True
    return any(pod.is_stopping or pod.disruption.is_true or pod.has_ended for pod in job.states)


def _waits_for_quota_since(job: ObservedJob, queues: bool) -> datetime | None:
    """None: quota is not what it waits for, or nobody knows since when."""
    place = queueing.place(job, queues)
    if place.reason == Reason.REQUEUED or place.status["reason"] == Reason.PENDING:
        return read_time(place.status.get("since") or "")
    return None


def fewer(spec: FineTuneJobSpec, number: int, job: ObservedJob, nodes: int, waited: int) -> str:
    """Why attempt `number` ends, and what the next one has.

    Args:
        waited: seconds.
    """
    lacks = "no quota" if job.queue and job.is_suspended else f"a node for {job.scheduled} of its {job.nodes} pods"
    return (
        f"Attempt {number} has had {lacks} for {waited} s and ends. Attempt {number + 1} asks for {_nodes(nodes)}; "
        f"{_same_batch(spec)}"
    )


def more(spec: FineTuneJobSpec, records: Sequence[AttemptJson], nodes: int) -> str:
    """What is reported of an attempt with more nodes than the last of these; empty if it has not."""
    last = records[-1].get("nodes") if records else None
    if last is None or nodes <= last:
        return ""
    number = records[-1]["number"]
    return f"Attempt {number + 1} asks for {_nodes(nodes)} again; attempt {number} had {last}. {_same_batch(spec)}"


def _nodes(number: int) -> str:
    return "1 node" if number == 1 else f"{number} nodes"


def _same_batch(spec: FineTuneJobSpec) -> str:
    return f"training.batchSize stays {spec.training.batch_size}."
