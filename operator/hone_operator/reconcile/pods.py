"""Reads Jobs and Pods: has it ended, how, and what does it wait for?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hone_api.failures import FailureCode
from hone_api.report import Outcome as Ending
from hone_api.report import parse_outcome
from hone_api.states import AnyReason, Quoted
from hone_operator.desired.pod import CONTAINERS
from hone_operator.reconcile.conditions import KubeCondition, condition, is_true
from hone_operator.reconcile.scheduling import Needs, explain
from hone_operator.times import parse_time

INDEX = "batch.kubernetes.io/job-completion-index"
IMAGE_REASONS = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
MOUNTING_REASONS = frozenset({"", "ContainerCreating", "PodInitializing"})
SLOW_START = timedelta(seconds=20)
CONTAINER_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CreatePodSandboxError"}
)


@dataclass(frozen=True)
class Waiting:
    """Why a Job's pods do not run yet."""

    reason: AnyReason
    message: str
    code: FailureCode | None = None
    """Failure code if waiting cannot help."""
    since: datetime | None = None
    scheduled: bool = False


@dataclass(frozen=True)
class ObservedJob:
    """A child Job with its pods."""

    body: Mapping[str, Any]
    pods: Sequence[Mapping[str, Any]] = ()
    refused: str | None = None
    """The API server's message if the Job controller could not create pods."""
    log_tail: str | None = None
    """Last lines of the pod that failed first; read once the Job has failed."""
    claims: tuple[str, ...] = ()
    """Messages about the volume claims that a pod without a node waits for."""
    stuck: Waiting | None = None
    """The kubelet's message if it cannot create a container."""
    plan_lost: bool = False
    """Whether its plan's ConfigMap is gone before a pod has read it: it can never start."""

    @property
    def name(self) -> str:
        name: str = self.body["metadata"]["name"]
        return name

    @property
    def succeeded(self) -> bool:
        return is_true(self.body, KubeCondition.COMPLETE)

    @property
    def failed(self) -> bool:
        """Whether it failed and all pods have ended."""
        return is_true(self.body, KubeCondition.FAILED)

    @property
    def finished(self) -> bool:
        return self.succeeded or self.failed

    @property
    def ended_at(self) -> str:
        """When it finished; empty before that."""
        for type_ in (KubeCondition.COMPLETE, KubeCondition.FAILED):
            if is_true(self.body, type_):
                ended_at: str = condition(self.body, type_).get("lastTransitionTime", "")
                return ended_at
        return ""

    @property
    def nodes(self) -> int:
        """Number of pods, for a Job of ours."""
        return self.body["spec"].get("completions") or 1

    def label(self, name: str) -> int:
        """A numeric label; 0 if absent."""
        text = self.body["metadata"].get("labels", {}).get(name, "")
        return int(text) if text.isdigit() else 0

    def result(self) -> Ending | None:
        """The termination message of the pod of rank 0."""
        for pod in sorted(self.pods, key=rank):
            ending = ending_of(pod)
            if ending and ending.result:
                return ending
        return None


def rank(pod: Mapping[str, Any]) -> int:
    """Completion index of a pod, from 0. A pod that somebody else created may have any value."""
    meta = pod["metadata"]
    text = meta.get("labels", {}).get(INDEX) or meta.get("annotations", {}).get(INDEX) or "0"
    return int(text) if text.isdecimal() else 0


def deciding(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Status of the container that decides about the pod: the first of ours that did not succeed, else the last.

    They run one after another, so later ones have not begun. Empty if the kubelet has reported none.
    """
    chosen: Mapping[str, Any] = {}
    for status in statuses(pod):
        if status["name"] in CONTAINERS:
            chosen = status
            if (status.get("state", {}).get("terminated") or {}).get("exitCode") != 0:
                break
    return chosen


def statuses(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Statuses of all containers, in the order in which they start."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def terminated(pod: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """State of the container that decides about the pod, once it has ended."""
    state: Mapping[str, Any] | None = deciding(pod).get("state", {}).get("terminated")
    return state


def ending_of(pod: Mapping[str, Any]) -> Ending | None:
    """The termination message, if it is ours."""
    state = terminated(pod)
    return parse_outcome(state["message"]) if state and state.get("message") else None


def disrupted(pod: Mapping[str, Any]) -> bool:
    """Whether the cluster ended the pod: eviction, drain, preemption, taint, node loss."""
    return is_true(pod, KubeCondition.DISRUPTION_TARGET)


def scheduled(pods: Iterable[Mapping[str, Any]]) -> int:
    """Number of pods that have a node."""
    return sum(1 for p in pods if is_true(p, KubeCondition.POD_SCHEDULED))


def running(pods: Iterable[Mapping[str, Any]]) -> int:
    """Number of pods whose container runs or has run."""
    return sum(1 for p in pods if (p.get("status") or {}).get("phase") in ("Running", "Succeeded", "Failed"))


def waiting(job: ObservedJob) -> Waiting | None:
    """The first obstacle for an unfinished Job's pods, or None."""
    if job.refused:
        quota = "exceeded quota" in job.refused
        return Waiting(FailureCode.QUOTA_EXCEEDED if quota else FailureCode.POD_REFUSED, job.refused)
    for pod in sorted(job.pods, key=rank):
        if obstacle := _pod_waiting(pod, job.claims):
            return obstacle
    return job.stuck


def starting(pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Pods that have a node and wait for volumes or network; no event reports those that wait for ever."""
    return [p for p in pods if is_true(p, KubeCondition.POD_SCHEDULED) and _container_reason(p) in MOUNTING_REASONS]


def slow_start(pods: Iterable[Mapping[str, Any]], now: datetime) -> Mapping[str, Any] | None:
    """The first of them that has waited so long that the kubelet's events should be read."""
    for pod in sorted(starting(pods), key=rank):
        if _scheduled_at(pod) + SLOW_START <= now:
            return pod
    return None


def unmounted(pod: Mapping[str, Any], reason: Quoted, message: str) -> Waiting:
    """What a pod waits for, in the kubelet's words."""
    name = pod["metadata"]["name"]
    return Waiting(
        reason, f"Pod {name}: {message}", FailureCode.CREATE_CONTAINER_FAILED, _scheduled_at(pod), scheduled=True
    )


def _scheduled_at(pod: Mapping[str, Any]) -> datetime:
    since = condition(pod, KubeCondition.POD_SCHEDULED).get("lastTransitionTime")
    return parse_time(since or pod["metadata"]["creationTimestamp"])


def _container_reason(pod: Mapping[str, Any]) -> str | None:
    """Why the container waits; None if it runs or has ended."""
    if (pod.get("status") or {}).get("phase", "Pending") != "Pending":
        return None
    state = deciding(pod).get("state", {})
    # A pod is still Pending while the first of its two containers runs.
    return None if state.keys() & {"running", "terminated"} else state.get("waiting", {}).get("reason", "")


def unbound_claims(pods: Iterable[Mapping[str, Any]]) -> set[str]:
    """Names of the volume claims that the scheduler may wait for."""
    claims = set()
    for pod in pods:
        unscheduled = condition(pod, KubeCondition.POD_SCHEDULED)
        if unscheduled.get("status") == "False" and "persistent" in unscheduled.get("message", "").lower():
            volumes = (pod.get("spec") or {}).get("volumes") or ()
            claims |= {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    return claims


def _pod_waiting(pod: Mapping[str, Any], claims: tuple[str, ...]) -> Waiting | None:
    name = pod["metadata"]["name"]
    unscheduled = condition(pod, KubeCondition.POD_SCHEDULED)
    if unscheduled.get("status") == "False":
        reason = Quoted(unscheduled.get("reason") or FailureCode.UNSCHEDULABLE)
        words = explain(unscheduled.get("message", "no node fits"), Needs.of(pod, claims))
        return Waiting(reason, f"Pod {name}: {words}")
    since = parse_time(pod["metadata"]["creationTimestamp"])
    for status in statuses(pod):
        state = status.get("state", {}).get("waiting") or {}
        reason, message = state.get("reason", ""), state.get("message", "")
        code = (
            FailureCode.IMAGE_PULL_FAILED
            if reason in IMAGE_REASONS
            else FailureCode.CREATE_CONTAINER_FAILED
            if reason in CONTAINER_REASONS
            else None
        )
        if code:
            return Waiting(Quoted(reason), f"Pod {name}: {message or reason}", code, since, scheduled=True)
    return None
