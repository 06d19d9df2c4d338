"""What `hone doctor` and `hone bundle` compute without a cluster: free GPUs, and what is left out of an object."""

from __future__ import annotations

import pytest

from hone_cli.health.bundle import without_secrets
from hone_cli.reach.capacity import GPU, counted

pytestmark = pytest.mark.pure


def node(name: str, gpus: int, *, ready: str = "True", cordoned: bool = False) -> dict[str, object]:
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": "NVIDIA-L4"}},
        "spec": {"unschedulable": cordoned},
        "status": {"allocatable": {GPU: str(gpus)}, "conditions": [{"type": "Ready", "status": ready}]},
    }


def pod(where: str | None, *gpus: int, phase: str = "Running", first: int = 0) -> dict[str, object]:
    def container(count: int) -> dict[str, object]:
        return {"resources": {"limits": {GPU: str(count)}}}

    spec = {"containers": [container(count) for count in gpus], "initContainers": [container(first)]}
    return {"spec": {**spec, **({"nodeName": where} if where else {})}, "status": {"phase": phase}}


def test_free_gpus_are_those_of_ready_nodes_that_no_living_pod_requests() -> None:
    nodes = [node("a", 8), node("b", 4), node("c", 8, ready="False"), node("d", 8, cordoned=True), node("e", 0)]
    pods = [pod("a", 2, 1), pod("a", 4, phase="Succeeded"), pod("b", 1, first=3), pod(None, 8)]
    assert [(each.name, each.gpus, each.free) for each in counted(nodes, pods, GPU)] == [("a", 8, 5), ("b", 4, 1)]
    assert [each.free for each in counted(nodes, None, GPU)] == [None, None]


def test_values_of_variables_and_bookkeeping_are_left_out() -> None:
    body = {
        "metadata": {"managedFields": [1], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x"}},
        "spec": {
            "pod": {
                "env": [{"name": "A", "value": "plain"}, {"name": "B", "valueFrom": {"secretKeyRef": {"key": "k"}}}]
            },
            "trainer": {"extraEnv": {"C": "plain"}},
            "args": ["password=abcdefgh"],
        },
    }
    assert without_secrets(body) == {
        "metadata": {"annotations": {}},
        "spec": {
            "pod": {"env": [{"name": "A", "value": "***"}, {"name": "B", "valueFrom": {"secretKeyRef": {"key": "k"}}}]},
            "trainer": {"extraEnv": {"C": "***"}},
            "args": ["password=***"],
        },
    }
