"""A Job with its pods: has it ended, how, and what does it wait for?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from hone_api.contract.termination import TerminationMessage
from hone_api.words.failures import FailureCode
from hone_api.words.states import AnyReason, Quoted
from hone_operator.desired.core import names
from hone_operator.reconcile.core.conditions import KubeCondition, condition, is_true
from hone_operator.reconcile.core.node_faults import NodeTrouble
from hone_operator.reconcile.core.pod_state import PodState, read_pod
from hone_operator.reconcile.core.scheduling import Needs, explain, scheduling_gate

IMAGE_REASONS = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
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
    node_troubles: tuple[NodeTrouble, ...] = ()
    """What is wrong with the nodes of its pods; read once the Job has failed."""
    claims: tuple[str, ...] = ()
    """Messages about the volume claims that a pod without a node waits for."""
    stuck: Waiting | None = None
    """The kubelet's message if it cannot create a container."""
    plan_lost: bool = False
    """Whether its plan's ConfigMap is gone before a pod has read it: it can never start."""
    workload: Mapping[str, Any] | None = None
    """What Kueue has made of it; None: nothing, or it has no queue."""

    @cached_property
    def states(self) -> tuple[PodState, ...]:
        """The pods in the order of their ranks, each read once."""
        return tuple(sorted(map(read_pod, self.pods), key=lambda pod: pod.rank))

    @property
    def scheduled(self) -> int:
        """Number of pods that have a node."""
        return sum(1 for pod in self._present if pod.scheduling.is_true)

    @property
    def running(self) -> int:
        """Number of pods whose container runs or has run."""
        return sum(1 for pod in self._present if pod.ran)

    @property
    def _present(self) -> tuple[PodState, ...]:
        """Without the pods that Kueue has stopped: it can admit their Job again before they have ended."""
        return tuple(pod for pod in self.states if not (self.queue and pod.is_stopping))

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
    def queue(self) -> str:
        """The LocalQueue of Kueue that it is in; empty: none."""
        queue: str = self.body["metadata"].get("labels", {}).get(names.QUEUE, "")
        return queue

    @property
    def is_suspended(self) -> bool:
        return bool(self.body["spec"].get("suspend"))

    @property
    def is_still(self) -> bool:
        """Whether it has ended, or is suspended and none of its pods runs any more: no report is to come."""
        return self.finished or (self.is_suspended and not any(pod.runs for pod in self.states))

    @property
    def nodes(self) -> int:
        """Number of pods, for a Job of ours."""
        return self.body["spec"].get("completions") or 1

    def label(self, name: str) -> int:
        """A numeric label; 0 if absent."""
        text = self.body["metadata"].get("labels", {}).get(name, "")
        return int(text) if text.isdigit() else 0

    def result(self) -> TerminationMessage | None:
        """The termination message of the pod of rank 0."""
        return next((pod.ending for pod in self.states if pod.ending and pod.ending.result), None)


def waiting(job: ObservedJob) -> Waiting | None:
    """The first obstacle for an unfinished Job's pods, or None."""
    if job.refused:
        quota = "exceeded quota" in job.refused
        return Waiting(FailureCode.QUOTA_EXCEEDED if quota else FailureCode.POD_REFUSED, job.refused)
    for pod in job.states:
        if obstacle := _pod_waiting(pod, job.claims):
            return obstacle
    return job.stuck


def slow_start(pods: Iterable[PodState], now: datetime) -> PodState | None:
    """The first pod whose mounts have taken so long that the kubelet's events should be read."""
    for pod in sorted(pods, key=lambda p: p.rank):
        if pod.mounting and pod.scheduled_at + SLOW_START <= now:
            return pod
    return None


def unmounted(pod: PodState, reason: Quoted, message: str) -> Waiting:
    """What a pod waits for, in the kubelet's words."""
    return Waiting(
        reason, f"Pod {pod.name}: {message}", FailureCode.CREATE_CONTAINER_FAILED, pod.scheduled_at, scheduled=True
    )


def unbound_claims(pods: Iterable[PodState]) -> set[str]:
    """Names of the volume claims that the scheduler may wait for."""
    claims = set()
    for pod in pods:
        if pod.scheduling.status == "False" and "persistent" in (pod.scheduling.message or "").lower():
            volumes = (pod.body.get("spec") or {}).get("volumes") or ()
            claims |= {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    return claims


_LOST_UPDATE = "Operation cannot be fulfilled on "
"""The scheduler's SchedulerError where another has changed an object meanwhile; it tries again by itself."""


def _pod_waiting(pod: PodState, claims: tuple[str, ...]) -> Waiting | None:
    unscheduled = pod.scheduling
    if unscheduled.status == "False" and _LOST_UPDATE not in (unscheduled.message or ""):
        reason = Quoted(unscheduled.reason or FailureCode.UNSCHEDULABLE)
        message = "no node fits" if unscheduled.message is None else unscheduled.message
        words = scheduling_gate(pod.body) or explain(message, Needs.of(pod.body, claims))
        return Waiting(reason, f"Pod {pod.name}: {words}")
    for wait in pod.waits:
        if code := code_of_wait(wait.reason):
            words = f"Pod {pod.name}: {wait.message or wait.reason}"
            return Waiting(Quoted(wait.reason), words, code, pod.created, scheduled=True)
    return None


def code_of_wait(reason: str) -> FailureCode | None:
    """Failure code for the kubelet's reason of a container that waits in vain; None if it may start."""
    if reason in IMAGE_REASONS:
        return FailureCode.IMAGE_PULL_FAILED
    return FailureCode.CREATE_CONTAINER_FAILED if reason in CONTAINER_REASONS else None
