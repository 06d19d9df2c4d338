"""What the ranks of an attempt with several pods need of the network: names, and a closed door for everybody else."""

from collections.abc import Mapping
from typing import Any

from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import METRICS_PORT
from hone_operator.desired.run.attempt import attempt_labels


def service(owner: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Headless Service of attempt `number`: gives each rank a name before it is ready, for the rendezvous."""
    name = names.attempt(owner["metadata"]["name"], number)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(name, owner, attempt_labels(owner, number)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": name},
            "ports": [{"name": "rendezvous", "port": 29500}],
        },
    }


def isolation(owner: Mapping[str, Any], number: int, platform: Platform) -> dict[str, Any]:
    """NetworkPolicy of attempt `number`: only its own ranks reach each other, on any port (gloo and NCCL choose
    theirs), and a Prometheus reaches their metrics. The rendezvous and the collectives have no password."""
    metrics: dict[str, Any] = {"ports": [{"port": METRICS_PORT, "protocol": "TCP"}]}
    if platform.metrics_from:
        metrics["from"] = [dict(peer) for peer in platform.metrics_from]
    name = names.attempt(owner["metadata"]["name"], number)
    pods = {"matchLabels": {"batch.kubernetes.io/job-name": name}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": names.metadata(name, owner, attempt_labels(owner, number)),
        "spec": {
            "podSelector": pods,
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": pods}]},
                metrics,
            ],
        },
    }


def network(owner: Mapping[str, Any], number: int, platform: Platform) -> list[dict[str, Any]]:
    """[NetworkPolicy, Service] for the ranks of several nodes, so that they find each other and nobody else reaches
    them."""
    return [isolation(owner, number, platform), service(owner, number)]
