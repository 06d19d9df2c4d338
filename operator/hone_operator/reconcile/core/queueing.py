"""Where an attempt stands in its queue: what Kueue's Workload says, and when the operator changes it.

Kueue starts and stops a Job with its label by `spec.suspend`. The operator never writes that field of such a Job, or
the two would undo each other's writes: `spec.suspend` of a FineTuneJob becomes `spec.active` of the Workload.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hone_api.blocks.placement import Scheduling
from hone_api.contract.status_json import QueueJson
from hone_api.words.states import Reason
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.queue import activation
from hone_operator.reconcile.core.conditions import KubeCondition, condition, is_true
from hone_operator.reconcile.core.pods import ObservedJob, Waiting
from hone_operator.times import read_time

MAX_MESSAGE = 1024
SILENT_SECONDS = 10.0
"""How long after Kueue has created a Workload its silence is not reported: usually it admits the Job at once."""
NOT_TAKEN_UP = "Kueue has not taken up Job {} yet. If this lasts, Kueue does not run, or does not manage Jobs here."
NOT_ENABLED = (
    "Job {} waits in Kueue's queue {}, and kueue.enabled of the chart is false: set it to true, or delete the Job, and "
    "the default LocalQueue if there is one."
)
_NO_QUEUE = re.compile(r"LocalQueue \S+ doesn't exist")
"""Kueue's message. Its reason, Inadmissible, also stands for queues that are stopped."""
ACTIVATE = 'To queue it again: kubectl patch workload {} -n {} --type=merge -p \'{{"spec":{{"active":true}}}}\''


def disabled_note(scheduling: Scheduling, platform: Platform) -> str:
    """What becomes of a queue's name where Kueue is not enabled; empty if there is nothing to say."""
    if platform.kueue.enabled or not scheduling.queue_name:
        return ""
    return (
        f"spec.scheduling.queueName {scheduling.queue_name} is not used, because kueue.enabled of the chart is false: "
        "the pods do not wait for quota."
    )


@dataclass(frozen=True)
class QueuePlace:
    """The place of a Job in its queue."""

    reason: Reason
    """Of the condition Admitted, while Kueue keeps the Job suspended."""
    message: str
    status: QueueJson
    """The value of status.queue."""


def place(job: ObservedJob, enabled: bool) -> QueuePlace:
    """The place of a Job that has a queue.

    Args:
        enabled: whether the operator reads Workloads.
    """
    if not enabled:
        return _without_workload(job.queue, NOT_ENABLED.format(job.name, job.queue))
    return _of_workload(job.queue, job.workload) if job.workload is not None else at_the_end(job.name, job.queue)


def at_the_end(job_name: str, queue: str) -> QueuePlace:
    """The place of a Job that Kueue has not seen."""
    return _without_workload(queue, NOT_TAKEN_UP.format(job_name))


def silent_for(job: ObservedJob, now: datetime) -> float | None:
    """Seconds until it is news that Kueue has taken a Job up and says nothing about it; None: it is, or Kueue does.

    Of a queue of thousands of Jobs, this spares the API server a status and an Event for each.
    """
    workload = job.workload
    if workload is None or workload["status"].get("conditions") or not _is_active(workload):
        return None
    created = read_time(workload["metadata"].get("creationTimestamp"))
    age = (now - created).total_seconds() if created else SILENT_SECONDS
    return SILENT_SECONDS - age if abs(age) < SILENT_SECONDS else None  # a clock may be ahead of the other


def is_before_kueue(message: str) -> bool:
    """Whether a message says that Kueue has not seen the Job."""
    return message.startswith(NOT_TAKEN_UP.partition("{}")[0])


def _without_workload(queue: str, words: str) -> QueuePlace:
    return QueuePlace(Reason.QUEUED, words, {"name": queue, "reason": Reason.PENDING, "message": words})


def wait(job: ObservedJob) -> Waiting | None:
    """What a Job that does not train waits for in its queue; None if it has none, or has its quota."""
    if not keeps_waiting(job):
        return None
    standing = place(job, enabled=True)
    # The queue is that of staging.queueName of the chart: if it does not exist, the spec has no mistake.
    reason = Reason.QUEUED if standing.reason == Reason.QUEUE_NOT_FOUND else standing.reason
    return Waiting(reason, f"Job {job.name} waits in queue {job.queue}: {standing.message}")


def keeps_waiting(job: ObservedJob) -> bool:
    """Whether Kueue keeps a Job suspended. One that it has admitted starts in a moment."""
    workload = job.workload or {}
    admitted = is_true(workload, KubeCondition.ADMITTED) and not is_evicted(job) and _is_active(workload)
    return bool(job.queue) and job.is_suspended and not admitted


def waits_in_queue(job: ObservedJob) -> bool:
    """Whether Kueue keeps a Job suspended for a reason of its own: not because the operator has deactivated it."""
    workload = job.workload
    held = workload is not None and not _is_active(workload) and _is_ours(workload)
    return keeps_waiting(job) and not held


def is_evicted(job: ObservedJob) -> bool:
    """Whether Kueue took the quota of a Job back, and has not given it any since."""
    return is_true(job.workload or {}, KubeCondition.EVICTED)


def pass_on(job: ObservedJob, suspend: bool) -> dict[str, Any] | None:
    """The change of a Job's Workload that `spec.suspend` of the FineTuneJob asks for; None if there is none."""
    workload = job.workload
    if workload is None or job.finished:
        return None
    if suspend:
        return activation(workload, active=False) if _is_active(workload) else None
    return activation(workload, active=True) if _is_ours(workload) else None


def _is_active(workload: Mapping[str, Any]) -> bool:
    return workload["spec"].get("active") is not False


def _is_ours(workload: Mapping[str, Any]) -> bool:
    """Whether the operator has deactivated it."""
    return (workload["metadata"].get("annotations") or {}).get(names.HELD) == "true"


def _of_workload(queue: str, workload: Mapping[str, Any]) -> QueuePlace:
    meta, state = workload["metadata"], workload["status"]
    reason, word, message, since = _standing(workload)
    status: QueueJson = {"name": queue, "workload": meta["name"], "reason": word, "message": message[:MAX_MESSAGE]}
    if since:
        status["since"] = since
    if cluster_queue := (state.get("admission") or {}).get("clusterQueue"):
        status["clusterQueue"] = cluster_queue
    if (priority := workload["spec"].get("priority")) is not None:
        status["priority"] = priority
    if evictions := _evictions(state):
        status["evictions"] = evictions
    return QueuePlace(reason, message[:MAX_MESSAGE], status)


def _standing(workload: Mapping[str, Any]) -> tuple[Reason, str, str, str]:
    """(reason, Kueue's word for it, message, since when) of a Workload: the first obstacle, or that it is admitted."""
    meta = workload["metadata"]
    evicted, quota = condition(workload, KubeCondition.EVICTED), condition(workload, KubeCondition.QUOTA_RESERVED)
    eviction, waits = evicted.get("message", ""), quota.get("message", "")
    if not _is_active(workload) and not _is_ours(workload):
        words = f"{eviction or 'The workload is deactivated'}. {ACTIVATE.format(meta['name'], meta['namespace'])}"
        word = evicted.get("reason") or Reason.DEACTIVATED
        return Reason.DEACTIVATED, word, words, evicted.get("lastTransitionTime", "")
    word = evicted.get("reason") or KubeCondition.EVICTED
    if evicted.get("status") == "True" and not word.startswith(Reason.DEACTIVATED):
        words = (
            eviction if waits in ("", eviction) or quota["status"] == "True" else f"{eviction}. It waits again: {waits}"
        )
        return Reason.REQUEUED, word, words, evicted.get("lastTransitionTime", "")
    if is_true(workload, KubeCondition.ADMITTED):
        admitted = condition(workload, KubeCondition.ADMITTED)
        return Reason.QUEUED, KubeCondition.ADMITTED, "", admitted.get("lastTransitionTime", "")
    if quota.get("status") == "True":
        open_checks = _open_checks(workload) or "All its checks are ready: Kueue is about to admit it."
        return Reason.QUEUED, "AdmissionChecks", open_checks, quota.get("lastTransitionTime", "")
    since = quota.get("lastTransitionTime") or meta.get("creationTimestamp", "")
    reason = Reason.QUEUE_NOT_FOUND if _NO_QUEUE.fullmatch(waits) else Reason.QUEUED
    return reason, quota.get("reason") or Reason.PENDING, waits or "Kueue has not considered it yet.", since


def _open_checks(workload: Mapping[str, Any]) -> str:
    checks = workload["status"].get("admissionChecks") or ()
    return "; ".join(f"{c['name']}: {c['message'] or c['state']}" for c in checks if c["state"] != "Ready")


def _evictions(state: Mapping[str, Any]) -> int:
    """How often Kueue took the quota back."""
    counted = (state.get("schedulingStats") or {}).get("evictions") or ()
    return sum(each["count"] for each in counted if each["reason"] != Reason.DEACTIVATED)
