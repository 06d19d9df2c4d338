"""Which job a pod may report for: only the one whose attempt it belongs to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_api.words.states import ConditionType
from hone_operator.desired.core import names
from hone_operator.objects.cache import controls
from hone_operator.progress.auth import Caller

Object = Mapping[str, Any]


class ReportRefusedError(Exception):
    """Why a report is refused: HTTP status, reason, message."""

    def __init__(self, status: int, reason: str, message: str):
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Chain:
    """The objects that link a pod to a FineTuneJob, each as last seen; None: it does not exist."""

    job: Object
    batch_job: Object | None
    pod: Object | None


def attempt_of(caller: Caller, chain: Chain) -> int:
    """The attempt that the caller's pod belongs to, if it is the job's newest and the job has not ended.

    Raises:
        ReportRefusedError
    """
    job, pod = chain.job, chain.pod
    name = job["metadata"]["name"]
    if pod is None or pod["metadata"]["uid"] != caller.pod_uid:
        raise ReportRefusedError(403, "Forbidden", f"pod {caller.pod_name} does not exist any more")
    number = labelled_attempt(pod)
    if number is None or pod["metadata"]["labels"].get(names.FINETUNEJOB) != name:
        raise ReportRefusedError(403, "Forbidden", f"pod {caller.pod_name} is not one of finetunejob {name}")
    if not (controls(chain.batch_job, pod) and controls(job, chain.batch_job)):
        raise ReportRefusedError(
            403, "Forbidden", f"pod {caller.pod_name} does not belong to attempt {number} of {name}"
        )
    attempts = (job.get("status") or {}).get("attempts") or []
    newest = max((a["number"] for a in attempts), default=number)
    if number < newest:
        raise ReportRefusedError(403, "Forbidden", f"attempt {number} of {name} is over: attempt {newest} is current")
    if finished(job):
        raise ReportRefusedError(409, "Conflict", f"finetunejob {name} has ended: reports are not taken any more")
    return number


def works_for(caller: Caller, job: Object | None, pod: Object | None, component: str) -> Object:
    """The Job of this component whose pod the caller is.

    Raises:
        ReportRefusedError
    """
    if pod is None or pod["metadata"]["uid"] != caller.pod_uid:
        raise ReportRefusedError(403, "Forbidden", f"pod {caller.pod_name} does not exist any more")
    labels = (job["metadata"].get("labels") or {}) if job else {}
    if job is None or labels.get(names.COMPONENT) != component or not controls(job, pod):
        raise ReportRefusedError(
            403, "Forbidden", f"pod {caller.pod_name} is not one of a Job {component} of this name"
        )
    return job


def labelled_attempt(pod: Object) -> int | None:
    """The attempt in a pod's labels."""
    text = (pod["metadata"].get("labels") or {}).get(names.ATTEMPT, "")
    return int(text) if text.isascii() and text.isdigit() else None


def finished(job: Object) -> bool:
    """Whether the job has reached a terminal state, or is being deleted."""
    conditions = (job.get("status") or {}).get("conditions") or []
    ended = any(c["type"] == ConditionType.FINISHED and c["status"] == "True" for c in conditions)
    return ended or "deletionTimestamp" in job["metadata"]
