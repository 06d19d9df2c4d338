"""The line in which jobs wait where only so many of a namespace may train at the same time, without Kueue.

A job that trains, or that starts again after a failure, has a place. The others wait, oldest first. Everything is read
from objects, so that a restart of the operator changes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.words.failures import FailureCode
from hone_api.words.states import AttemptOutcome, ConditionType, Reason
from hone_operator.desired.core import names
from hone_operator.reconcile.core.conditions import KubeCondition, condition, is_true

MAX_ACTIVE = "MaxActiveJobs"
"""Value of status.queue.reason."""
LOOK_SECONDS, LONGEST_LOOK = 15.0, 300.0
"""Seconds until the next job of the line looks again, and at most: jobs far behind look less often."""
_CONTINUES = (AttemptOutcome.FAILED, AttemptOutcome.PREEMPTED, AttemptOutcome.RESIZED)
"""Outcomes of an attempt after which the next one starts by itself."""
_HELD_BACK = (Reason.WAITING, Reason.NOT_ACCEPTED, FailureCode.NOT_ALLOWED, Reason.QUEUED)
"""Reasons of condition Admitted while the next attempt waits for something that may never come: a Dataset that is gone,
say, or limits that were tightened. Who waited for it joins the line."""
_ENDED = (KubeCondition.COMPLETE, KubeCondition.FAILED)


@dataclass(frozen=True)
class Line:
    """The place of a job that does not train now."""

    most: int
    """Jobs that may train at the same time."""
    active: int
    """Other jobs that have a place."""
    ahead: int
    """Older jobs that wait."""

    @property
    def is_open(self) -> bool:
        """Whether the job may start."""
        return self.active + self.ahead < self.most

    @property
    def position(self) -> int:
        """1 for the job that starts next."""
        return self.ahead + 1

    @property
    def message(self) -> str:
        return (
            f"{self.active} of at most {self.most} jobs of this namespace train (tenants.maxActiveJobs of the chart): "
            f"this one is number {self.position} of those that wait, oldest first."
        )

    @property
    def look_again_in(self) -> float:
        """Seconds."""
        return min(LOOK_SECONDS * self.position, LONGEST_LOOK)


def place(
    job: Mapping[str, Any], most: int, siblings: Iterable[Mapping[str, Any]], children: Iterable[Mapping[str, Any]]
) -> Line | None:
    """The place of a job in the line of its namespace; None if it needs none.

    Args:
        siblings: FineTuneJobs of the namespace.
        children: Jobs of the namespace.
    """
    training = {_owner(child) for child in children if trains(child)}
    mine = job["metadata"]["uid"]
    if not most or _has_place(job, training):
        return None
    others = [other for other in siblings if other["metadata"]["uid"] != mine]
    active = sum(1 for other in others if _has_place(other, training))
    ahead = sum(1 for other in others if _waits(other) and not _has_place(other, training) and _age(other) < _age(job))
    return Line(most, active, ahead)


def starts_training(create: Sequence[Mapping[str, Any]], apply: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a decision that creates and applies these objects begins, or continues, training without Kueue."""
    creates = any(body["kind"] == "Job" and trains(body) for body in create)
    return creates or any(body["kind"] == "Job" and body["spec"].get("suspend") is False for body in apply)


def trains(child: Mapping[str, Any]) -> bool:
    """Whether a Job trains, or will, without a queue of Kueue."""
    labels = child["metadata"].get("labels") or {}
    if labels.get(names.COMPONENT) != "training" or names.QUEUE in labels or child["spec"].get("suspend"):
        return False
    return not any(is_true(child, ended) for ended in _ENDED)


def queue_of(job: Mapping[str, Any]) -> str | None:
    """The queue of Kueue that a job names."""
    name: str | None = (job["spec"].get("scheduling") or {}).get("queueName")
    return name


def _owner(child: Mapping[str, Any]) -> str | None:
    return (child["metadata"].get("labels") or {}).get(names.RUN)


def _has_place(job: Mapping[str, Any], training: set[str | None]) -> bool:
    """Whether a job trains, or starts again by itself as soon as its pause is over."""
    if job["metadata"]["uid"] in training:
        return True
    attempts = (job.get("status") or {}).get("attempts") or ()
    if not attempts or is_true(job, ConditionType.FINISHED) or job["spec"].get("suspend"):
        return False
    if condition(job, ConditionType.ADMITTED).get("reason") in _HELD_BACK:
        return False
    last = attempts[-1]
    if "endTime" not in last and is_true(job, ConditionType.RUNNING):
        return True  # also if somebody took the label from its Job, by which we would see it
    if last.get("outcome") == AttemptOutcome.RESIZED:
        return True  # also while its pods stop, and its Job is gone
    return "endTime" in last and last.get("outcome") in _CONTINUES


def _waits(job: Mapping[str, Any]) -> bool:
    """Whether a job has said that it waits in the line."""
    queue = (job.get("status") or {}).get("queue") or {}
    if job["metadata"].get("deletionTimestamp") or is_true(job, ConditionType.FINISHED) or job["spec"].get("suspend"):
        return False
    return queue.get("reason") == MAX_ACTIVE and condition(job, ConditionType.ADMITTED).get("reason") == Reason.QUEUED


def _age(job: Mapping[str, Any]) -> tuple[str, str]:
    """Sorts jobs from the oldest to the youngest."""
    return job["metadata"].get("creationTimestamp", ""), job["metadata"]["name"]
