"""Failure analysis: from the pods of a failed Job to one cause with a hint."""

from dataclasses import dataclass, replace

from hone_api.contract.status_json import JobFailureJson
from hone_api.words.failures import FAILURES, ExitCode, FailureCode, Retry
from hone_operator.reconcile.core.conditions import KubeCondition, condition
from hone_operator.reconcile.core.pod_state import PodState
from hone_operator.reconcile.core.pods import ObservedJob

MAX_LOG_TAIL = 8192
SECONDARY = frozenset({FailureCode.RANK_FAILED, FailureCode.INTERRUPTED})
"""Codes with which a rank reports that something else ended it."""
VAGUE = FailureCode.TRAINER_ERROR
_BY_A_FAULTY_NODE = frozenset({VAGUE, FailureCode.RANK_FAILED, FailureCode.HUNG, FailureCode.RANKS_DIFFER})
"""Codes that a faulty node explains: nothing in them points to the data or the settings. A rank that lost contact or
hung may have waited for one on another node; an error of a rank without a code of its own, e.g. CUDA's, is of its own
node."""
OUT_OF_MEMORY = frozenset({FailureCode.OUT_OF_MEMORY, FailureCode.GPU_OUT_OF_MEMORY})
SIGKILL = 137


@dataclass(frozen=True)
class Cause:
    """Why a Job failed."""

    code: FailureCode
    message: str
    hint: str | None = None
    rank: int | None = None
    pod: str | None = None
    exit_code: int | None = None
    log_tail: str | None = None
    step: int | None = None
    """The last step that the run finished, if the trainer reported it."""
    micro_batch_size: int | None = None
    """Rows of the forward pass in which the memory ran out, if the next attempt can have fewer."""
    faulty_nodes: tuple[str, ...] = ()
    """Nodes of the Job's pods that have a fault."""

    @property
    def retry(self) -> Retry:
        return FAILURES[self.code].retry

    @property
    def advice(self) -> str:
        """What happened and what to do, as sentences."""
        return f"{self.message.rstrip('.')}. {self.hint or FAILURES[self.code].hint}"

    def to_json(self) -> JobFailureJson:
        """The value of status.failure of a FineTuneJob."""
        out: JobFailureJson = {
            "code": self.code,
            "message": self.message[:4096],
            "hint": self.hint or FAILURES[self.code].hint,
        }
        if self.rank is not None:
            out["rank"] = self.rank
        if self.pod is not None:
            out["pod"] = self.pod
        if self.exit_code is not None:
            out["exitCode"] = self.exit_code
        if self.log_tail:
            out["logTail"] = self.log_tail[-MAX_LOG_TAIL:]
        return out


def failed_pods(job: ObservedJob) -> list[PodState]:
    """Pods that failed, the root cause first.

    A rank that reports a specific failure of its own comes before one that was killed, which comes before ranks that
    only lost contact with another; among equals the earliest end comes first.
    """
    failed = [pod for pod in job.states if pod.failed]
    return sorted(failed, key=lambda pod: (_weight(pod), _is_only_waiting(pod), _finished_at(pod)))


def root_cause(job: ObservedJob) -> Cause:
    """Why this failed Job failed; with the faults of its nodes, where they explain it."""
    cause = _cause_in_pods(job)
    troubles = job.node_troubles
    if cause.code == VAGUE:
        own = {pod.body.get("spec", {}).get("nodeName") for pod in job.states if pod.name == cause.pod}
        troubles = tuple(trouble for trouble in troubles if trouble.node in own)
    if not troubles or cause.code not in _BY_A_FAULTY_NODE | {FailureCode.DISRUPTED}:
        return cause
    message = " ".join([f"{cause.message.rstrip('.')}.", *(trouble.sentence for trouble in troubles)])
    faulty = tuple(dict.fromkeys(trouble.node for trouble in troubles if trouble.faulty))
    if faulty and cause.code in _BY_A_FAULTY_NODE:
        cause = replace(cause, code=FailureCode.NODE_FAULT, hint=None)
    return replace(cause, message=message, faulty_nodes=faulty)


def _cause_in_pods(job: ObservedJob) -> Cause:
    pods = failed_pods(job)
    if not pods:
        return _without_pods(job)
    pod, report = pods[0], pods[0].failure
    cause = Cause(VAGUE, "", rank=pod.rank, pod=pod.name, exit_code=pod.exit_code, step=report.step if report else None)
    if pod.disruption.is_true and (report is None or report.code in SECONDARY):
        text = f"Pod {pod.name} was disrupted: {pod.disruption.reason}: {pod.disruption.message or ''}"
        return replace(cause, code=FailureCode.DISRUPTED, message=text)
    cause = replace(cause, log_tail=job.log_tail)
    if report:
        code = FailureCode(report.code) if report.code in FAILURES else VAGUE
        rank = pod.rank if report.rank is None and not _is_only_waiting(pod) else report.rank
        reported = replace(cause, code=code, message=report.message, hint=report.hint, rank=rank)
        return replace(reported, micro_batch_size=report.micro_batch_size if code in OUT_OF_MEMORY else None)
    code, message = _from_exit(pod)
    return replace(cause, code=code, message=message)


def _weight(pod: PodState) -> int:
    code = pod.failure.code if pod.failure else None
    if code and code not in SECONDARY and code != VAGUE:
        return 0
    if pod.out_of_memory:
        return 1
    if pod.disruption.is_true:
        return 2
    if code == VAGUE:
        return 3
    return 4 if code is None else 5


def _is_only_waiting(pod: PodState) -> bool:
    """Whether all its ranks hung, and none of them stood out: the one that they waited for is in another pod."""
    return pod.failure is not None and pod.failure.code == FailureCode.HUNG and pod.failure.rank is None


def _finished_at(pod: PodState) -> str:
    """When it ended; a pod without a time comes last."""
    return (pod.termination.finished_at if pod.termination else "") or "~"


def _from_exit(pod: PodState) -> tuple[FailureCode, str]:
    """(code, message) for a pod without a report."""
    name, exit_code = pod.name, pod.exit_code
    if pod.out_of_memory:
        return FailureCode.OUT_OF_MEMORY, f"Pod {name} was killed: it used more memory than resources.memory."
    if pod.reason == "Evicted":
        return FailureCode.DISRUPTED, f"Pod {name} was evicted: {pod.message}"
    if pod.body["metadata"].get("deletionTimestamp") and exit_code in (None, SIGKILL):
        return FailureCode.DISRUPTED, f"Pod {name} was deleted, and killed before it had saved a checkpoint."
    if pod.reason == "DeadlineExceeded" and exit_code != ExitCode.INTERRUPTED:
        return (
            FailureCode.RANK_FAILED,
            f"Pod {name} ran for the longest time that podLimits of the chart allows, and was ended.",
        )
    if exit_code is None:
        words = pod.message or pod.reason or "no container status"
        return FailureCode.RANK_FAILED, f"Pod {name} failed: {words}"
    if exit_code == ExitCode.INTERRUPTED:
        return FailureCode.INTERRUPTED, f"Pod {name} was stopped after a checkpoint."
    if exit_code == SIGKILL:
        return FailureCode.RANK_FAILED, f"Pod {name} was killed (SIGKILL); the node may be short of memory."
    if exit_code > 128:
        return FailureCode.RANK_FAILED, f"Pod {name} ended by signal {exit_code - 128}."
    if exit_code == 0:
        return FailureCode.RESULT_MISSING, f"Pod {name} ended without a result."
    return FailureCode.TRAINER_ERROR, f"Pod {name} ended with exit code {exit_code} and without a report."


def _without_pods(job: ObservedJob) -> Cause:
    """The cause if the pods are gone, so that only the Job's own condition is left."""
    words = condition(job.body, KubeCondition.FAILED)
    text = f"{words.get('reason', 'Failed')}: {words.get('message', '')}"
    if KubeCondition.DISRUPTION_TARGET in text:
        return Cause(FailureCode.DISRUPTED, text)
    if f"exit code {int(ExitCode.INTERRUPTED)}" in text:
        return Cause(FailureCode.INTERRUPTED, text)
    if words.get("reason") == "BackoffLimitExceeded":  # pods that fail by themselves stay
        return Cause(FailureCode.DISRUPTED, f"The pods of Job {job.name} were deleted.")
    return Cause(FailureCode.RANK_FAILED, text)
