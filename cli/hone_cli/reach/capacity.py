"""The GPUs of a cluster: which nodes have them, and how many of them no pod has requested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hone_api.base.quantity import value
from hone_cli.errors import CommandError
from hone_cli.reach.kube import Kube, ServerRefusalError

GPU = "nvidia.com/gpu"
PRODUCT = "nvidia.com/gpu.product"
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class GpuNode:
    """A node that takes pods and has such GPUs."""

    name: str
    product: str
    gpus: int
    free: int | None
    """Not requested by any pod; None: the person may not list the pods of the cluster."""


def gpu_nodes(kube: Kube, resource: str = GPU) -> list[GpuNode]:
    """The nodes with GPUs.

    Raises:
        ServerRefusalError: the person may not list nodes.
    """
    nodes = kube.call("GET", "/api/v1/nodes")["items"]
    try:
        pods = kube.call("GET", "/api/v1/pods", query={"fieldSelector": "spec.nodeName!="})["items"]
    except ServerRefusalError:
        return counted(nodes, None, resource)
    return counted(nodes, pods, resource)


def counted(
    nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]] | None, resource: str
) -> list[GpuNode]:
    """The nodes that are ready and not cordoned, with what their pods leave. Pure."""
    used: dict[str, int] = {}
    for pod in pods or ():
        if (pod.get("status") or {}).get("phase") not in _ENDED and (node := pod["spec"].get("nodeName")):
            used[node] = used.get(node, 0) + _requested(pod["spec"], resource)
    found = []
    for node in nodes:
        gpus = _number((node["status"].get("allocatable") or {}).get(resource))
        if gpus and _takes_pods(node):
            name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
            free = None if pods is None else max(0, gpus - used.get(name, 0))
            found.append(GpuNode(name, labels.get(PRODUCT, "unknown"), gpus, free))
    return found


def quota_left(kube: Kube, resource: str = GPU) -> int | None:
    """GPUs that the ResourceQuotas of the namespace still permit; None: no quota names them, or nobody may look."""
    try:
        quotas = kube.call("GET", f"/api/v1/namespaces/{kube.namespace}/resourcequotas")["items"]
    except CommandError:
        return None
    key, left = f"requests.{resource}", []
    for quota in quotas:
        status = quota.get("status") or {}
        if key in (status.get("hard") or {}):
            left.append(_number(status["hard"][key]) - _number((status.get("used") or {}).get(key)))
    return max(0, min(left)) if left else None


def _takes_pods(node: Mapping[str, Any]) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions") or ())
    return ready and not node["spec"].get("unschedulable")


def _requested(spec: Mapping[str, Any], resource: str) -> int:
    def of(containers: Iterable[Mapping[str, Any]]) -> list[int]:
        return [_number(((c.get("resources") or {}).get("limits") or {}).get(resource)) for c in containers]

    return max([sum(of(spec["containers"])), *of(spec.get("initContainers") or ())])


def _number(quantity: object) -> int:
    return int(value(str(quantity))) if quantity is not None else 0
