"""Reads what the cache lacks about a Job: how it ended, and why its pods do not start."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hone_api.words.states import Quoted
from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import RefusedError
from hone_operator.desired.core.pod import CONTAINER, PLAN
from hone_operator.objects import cache as caches
from hone_operator.reconcile.core.failures import failed_pods
from hone_operator.reconcile.core.node_faults import NodeTrouble, troubles_of
from hone_operator.reconcile.core.pod_state import PodState, read_pod
from hone_operator.reconcile.core.pods import ObservedJob, slow_start, unbound_claims, unmounted
from hone_operator.reconcile.core.scheduling import unbound

LOG_LINES = 20


@dataclass(frozen=True)
class JobReader:
    """Reads one Job at a time from the API server."""

    cluster: Cluster
    now: Callable[[], datetime]

    async def in_progress(self, job: ObservedJob) -> ObservedJob:
        """The Job with the cluster's message if its pods do not start."""
        if not job.pods and _cannot_create_pods(job.body):
            return replace(job, refused=await self._why_no_pods(job.body))
        if pod := slow_start(job.states, self.now()):
            return await self._why_not_started(job, pod)
        if claims := sorted(unbound_claims(job.states)):
            words = [await self._about(job.body["metadata"]["namespace"], claim) for claim in claims]
            return replace(job, claims=tuple(w for w in words if w))
        return job

    async def _about(self, namespace: str, claim: str) -> str | None:
        """Why a volume claim is not bound; None if it is bound or does not exist."""
        body = await self.cluster.get("PersistentVolumeClaim", namespace, claim)
        if body is None or (body.get("status") or {}).get("phase") == "Bound":
            return None
        event = await self._newest_event(namespace, f"involvedObject.uid={body['metadata']['uid']},type=Warning")
        return unbound(body, event.get("message") if event else None)

    async def ended(self, job: ObservedJob, with_log: bool) -> ObservedJob:
        """The Job with its pods as the API server has them: the watch of pods may lag behind the watch of Jobs."""
        meta = job.body["metadata"]
        live = await self.cluster.list("Pod", meta["namespace"], labels=f"batch.kubernetes.io/job-name={meta['name']}")
        pods = [caches.strip("Pod", p) for p in live if caches.controls(job.body, p)]
        job = replace(job, pods=pods)
        if with_log and job.failed and (bad := failed_pods(job)) and not bad[0].disruption.is_true:
            container = bad[0].container or CONTAINER
            tail = await self.cluster.log_tail(meta["namespace"], bad[0].name, container, LOG_LINES)
            job = replace(job, log_tail=tail)
        return replace(job, node_troubles=await self._node_troubles(pods)) if job.failed else job

    async def _node_troubles(self, pods: Sequence[Mapping[str, Any]]) -> tuple[NodeTrouble, ...]:
        """What is wrong with the nodes of these pods; nothing where the operator has no right to read nodes."""
        names = sorted({pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")})
        try:
            nodes = [await self.cluster.get("Node", None, name) for name in names]
        except RefusedError:
            return ()
        return tuple(trouble for node in nodes if node for trouble in troubles_of(node))

    async def _why_no_pods(self, job: Mapping[str, Any]) -> str | None:
        """The Job controller's message, from its newest event."""
        meta = job["metadata"]
        event = await self._newest_event(meta["namespace"], f"involvedObject.uid={meta['uid']},reason=FailedCreate")
        return event.get("message") if event else None

    async def _why_not_started(self, job: ObservedJob, pod: PodState) -> ObservedJob:
        """The kubelet's message, from its newest event; and whether what it waits for can never come."""
        meta = pod.body["metadata"]
        # It has a node: what the scheduler said before is no longer true, and has another name in the status.
        fields = f"involvedObject.uid={meta['uid']},type=Warning,reason!=FailedScheduling"
        event = await self._newest_event(meta["namespace"], fields)
        if event is None:
            return job
        words = unmounted(pod, Quoted(event.get("reason") or "FailedMount"), event.get("message", ""))
        return replace(job, stuck=words, plan_lost=await self._plan_lost(meta["namespace"], meta["name"]))

    async def _plan_lost(self, namespace: str, pod: str) -> bool:
        body = await self.cluster.get("Pod", namespace, pod)
        plans = _plans(body) if body else []
        return any([await self.cluster.get("ConfigMap", namespace, p) is None for p in plans])

    async def never_starts(self, pod: Mapping[str, Any]) -> bool:
        """Whether the kubelet cannot find this pod's plan, which was deleted. If it has read the plan, the pod no
        longer needs it.

        Args:
            pod: the whole pod, as the API server has it at present.
        """
        if not slow_start([read_pod(pod)], self.now()):
            return False
        meta = pod["metadata"]
        event = await self._newest_event(meta["namespace"], f"involvedObject.uid={meta['uid']},type=Warning") or {}
        words = event.get("message") or ""
        in_vain = any(f'configmap "{plan}" not found' in words for plan in _plans(pod))
        return in_vain and await self._plan_lost(meta["namespace"], meta["name"])

    async def _newest_event(self, namespace: str, fields: str) -> Mapping[str, Any] | None:
        events = await self.cluster.list("CoreEvent", namespace, fields=fields)
        return max(events, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "", default=None)


def _plans(pod: Mapping[str, Any]) -> list[str]:
    """ConfigMaps with a pod's plan."""
    volumes = pod["spec"].get("volumes") or ()
    return [v["configMap"]["name"] for v in volumes if v["name"] == PLAN and "configMap" in v]


def _cannot_create_pods(job: Mapping[str, Any]) -> bool:
    """Whether the Job controller has begun (startTime) but has no pod: creation is refused."""
    status = job["status"]
    busy = status.get("active") or status.get("terminating")
    return bool(status.get("startTime")) and not busy and not job["spec"].get("suspend")
