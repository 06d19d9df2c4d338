"""Reads a pod once: whether it has a node, what its containers wait for, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from hone_api.contract.termination import FailureReport, TerminationMessage, parse_outcome
from hone_operator.desired.core.pod import CONTAINERS
from hone_operator.reconcile.core.conditions import KubeCondition, condition, is_true
from hone_operator.times import parse_time, read_time

INDEX = "batch.kubernetes.io/job-completion-index"
MOUNTING_REASONS = frozenset({"", "ContainerCreating", "PodInitializing"})


class PodCondition(NamedTuple):
    """A condition of a pod; `status` is empty if the pod does not have it."""

    status: str = ""
    reason: str | None = None
    message: str | None = None
    since: str | None = None

    @property
    def is_true(self) -> bool:
        return self.status == "True"


class Termination(NamedTuple):
    """How a container ended."""

    exit_code: int | None
    reason: str
    """The kubelet's, e.g. OOMKilled."""
    finished_at: str
    """In RFC 3339 and UTC, which sorts as text; empty if the kubelet does not know it."""
    ending: TerminationMessage | None
    """The termination message, if it is ours."""


class ContainerWait(NamedTuple):
    """Why a container does not run yet, in the kubelet's words."""

    reason: str
    message: str


@dataclass(frozen=True)
class PodState:
    """What the kubelet and the scheduler say about a pod."""

    body: Mapping[str, Any]
    rank: int
    """Completion index, from 0. A pod that somebody else created may have any value."""
    phase: str
    reason: str
    """Why the pod as a whole failed, e.g. Evicted; often empty."""
    message: str
    scheduling: PodCondition
    disruption: PodCondition
    """True if the cluster ended the pod: eviction, drain, preemption, taint, node loss."""
    container: str | None
    """The container that decides about the pod: the first of ours that did not succeed, else the last. They run one
    after another, so later ones have not begun. None if the kubelet has reported none."""
    termination: Termination | None
    """How that container ended."""
    mounting: bool
    """Whether the pod has a node and waits for volumes or network; no event reports those that wait for ever."""
    waits: tuple[ContainerWait, ...]
    """Of all containers, also of those that others added, in the order in which they start."""
    started_at: datetime | None
    """When the first of all its containers started."""

    @property
    def name(self) -> str:
        name: str = self.body["metadata"]["name"]
        return name

    @property
    def created(self) -> datetime:
        return parse_time(self.body["metadata"]["creationTimestamp"])

    @property
    def scheduled_at(self) -> datetime:
        """When it got its node; until then, when it was created."""
        return parse_time(self.scheduling.since) if self.scheduling.since else self.created

    @property
    def ran(self) -> bool:
        """Whether its container runs or has run."""
        return self.phase in ("Running", "Succeeded", "Failed")

    @property
    def has_ended(self) -> bool:
        """Whether its containers have ended for good."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def runs(self) -> bool:
        """Whether its containers have started and not all ended; also while it is stopping."""
        return self.ran and not self.has_ended

    @property
    def is_stopping(self) -> bool:
        """Whether it was deleted, e.g. because its Job is suspended, and has not ended yet; not for a disruption."""
        deleted = bool(self.body["metadata"].get("deletionTimestamp")) and not self.disruption.is_true
        return deleted and not self.has_ended

    @property
    def ending(self) -> TerminationMessage | None:
        """The termination message, if it is ours."""
        return self.termination.ending if self.termination else None

    @property
    def failure(self) -> FailureReport | None:
        """Why it failed, as the trainer reported it."""
        return self.ending.failure if self.ending else None

    @property
    def exit_code(self) -> int | None:
        return self.termination.exit_code if self.termination else None

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed it, because it used more memory than its limit."""
        return self.termination is not None and self.termination.reason == "OOMKilled"

    @property
    def failed(self) -> bool:
        """Whether it did not end well."""
        if self.termination is None:
            return self.phase == "Failed" or self.disruption.is_true
        return self.termination.exit_code != 0


def read_pod(pod: Mapping[str, Any]) -> PodState:
    """The state of a Pod as the API server or the cache has it."""
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    decisive = _decisive(containers)
    phase = status.get("phase", "Pending")
    scheduling = _condition(pod, KubeCondition.POD_SCHEDULED)
    return PodState(
        pod,
        _rank(pod),
        phase,
        status.get("reason") or "",
        status.get("message") or "",
        scheduling,
        _condition(pod, KubeCondition.DISRUPTION_TARGET),
        decisive.get("name"),
        _termination(decisive),
        scheduling.is_true and phase == "Pending" and _is_mounting(decisive.get("state", {})),
        tuple(wait for each in containers if (wait := _wait(each))),
        min((at for each in containers if (at := _started_at(each))), default=None),
    )


def has_node(pod: Mapping[str, Any]) -> bool:
    """Whether the scheduler has found a node for a pod: one field of `read_pod`, in a tenth of its time."""
    return is_true(pod, KubeCondition.POD_SCHEDULED)


def _rank(pod: Mapping[str, Any]) -> int:
    meta = pod["metadata"]
    text = meta.get("labels", {}).get(INDEX) or meta.get("annotations", {}).get(INDEX) or "0"
    return int(text) if text.isdecimal() else 0


def _condition(pod: Mapping[str, Any], type_: KubeCondition) -> PodCondition:
    body = condition(pod, type_)
    return PodCondition(body.get("status", ""), body.get("reason"), body.get("message"), body.get("lastTransitionTime"))


def _decisive(containers: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Status of the container that decides about the pod; empty if there is none of ours."""
    chosen: Mapping[str, Any] = {}
    for status in containers:
        if status["name"] in CONTAINERS:
            chosen = status
            if (status.get("state", {}).get("terminated") or {}).get("exitCode") != 0:
                break
    return chosen


def _termination(container: Mapping[str, Any]) -> Termination | None:
    state = container.get("state", {}).get("terminated")
    if state is None:
        return None
    message = state.get("message")
    ending = parse_outcome(message) if message else None
    return Termination(state.get("exitCode"), state.get("reason") or "", state.get("finishedAt") or "", ending)


def _is_mounting(state: Mapping[str, Any]) -> bool:
    # A pod is still Pending while the first of its two containers runs.
    return not state.keys() & {"running", "terminated"} and state.get("waiting", {}).get("reason", "") in (
        MOUNTING_REASONS
    )


def _started_at(container: Mapping[str, Any]) -> datetime | None:
    state = container.get("state", {})
    return read_time((state.get("running") or state.get("terminated") or {}).get("startedAt") or "")


def _wait(container: Mapping[str, Any]) -> ContainerWait | None:
    state = container.get("state", {}).get("waiting")
    return ContainerWait(state.get("reason", ""), state.get("message", "")) if state else None
