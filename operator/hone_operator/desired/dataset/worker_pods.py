"""Pods that work on rows for a leading pod: their Job, and how they reach that pod.

They have no volume except the plan and scratch space, and no credential: rows and what works on them come from the
leading pod, by the network. So the store may have any access mode.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hone_api.plan import WorkerPods
from hone_operator.desired.core import names
from hone_operator.desired.core.job import JobName, with_plan
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Work

PORT = 8786
RESTARTS = 6
"""Pods that may be lost for each one that is wanted; then the leading pod goes on with those that are left."""


def leading(work: Work, lead: str, service: str, namespace: str, pods: int, platform: Platform) -> Work:
    """The work of the leading pod, whose Job is `lead`.

    Args:
        pods: all of them, the leading one included.
    """
    host = f"{lead}-0.{service}.{namespace}.svc.{platform.cluster_domain}"
    workers = WorkerPods(pods=pods, host=host, port=PORT)
    return replace(work, plan=work.plan.model_copy(update={"workers": workers}), pod={**work.pod, "subdomain": service})


def others(
    owner: Mapping[str, Any], name: JobName, plan: str, work: Work, pods: int, platform: Platform
) -> dict[str, Any]:
    """The Job of the other pods. One that is lost is replaced: its part is done again by the others.

    Args:
        plan: the ConfigMap of the leading pod's plan.
        work: the leading pod's.
        pods: all of them, the leading one included.
    """
    own = Work(name.labels[names.COMPONENT], "work", work.plan, cpu=work.cpu, memory=work.memory, mounts=())
    body = with_plan(plan, owner, name, own, platform, pods - 1)
    del body["spec"]["podFailurePolicy"]
    body["spec"]["backoffLimit"] = RESTARTS * (pods - 1)
    return body


def network(metadata: Mapping[str, Any], everyone: Mapping[str, str], lead: str) -> list[dict[str, Any]]:
    """[NetworkPolicy, Service]: the leading pod gets a name before it is ready, and only these pods reach each other,
    since Dask's connections have no password.

    Args:
        everyone: labels of all pods.
        lead: component of the leading one.
    """
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {**metadata},
            "spec": {
                "podSelector": {"matchLabels": {**everyone}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {**everyone}}}]}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**metadata},
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {**everyone, names.COMPONENT: lead},
                "ports": [{"name": "scheduler", "port": PORT}],
            },
        },
    ]
