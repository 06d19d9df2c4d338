"""What `hone doctor` and `hone bundle` compute without a cluster: free GPUs, and what is left out of an object."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hone_cli.health import bundle
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


@pytest.mark.parametrize(
    "text",
    [
        '{"HF_TOKEN": "abcdef123456"}',
        "HF_TOKEN: abcdef123456",
        "hone-step --token=abcdef123456 --rows 8",
        "login --password abcdef123456",
        "Authorization: Token abcdef123456",
        "client-key-data: abcdef123456",
    ],
)
def test_a_credential_is_hidden_in_each_form_of_a_log(text: str) -> None:
    shown = without_secrets({"message": text})["message"]
    assert "***" in shown
    assert "abcdef" not in shown


def test_a_credential_is_hidden_by_the_name_of_its_field_and_annotations_of_others_are_left_out() -> None:
    annotations = {"kapp.k14s.io/original": '{"value": "abcdef123456"}', "hone.dev/checked": "{}"}
    body = {"metadata": {"annotations": annotations, "name": "job"}, "data": {"HF_TOKEN": "abcdef123456"}}
    shown = {"annotations": {"hone.dev/checked": "{}"}, "name": "job"}
    assert without_secrets(body) == {"metadata": shown, "data": {"HF_TOKEN": "***"}}


def test_of_a_long_log_the_newest_lines_are_kept() -> None:
    class Core:
        """A log as the API server cuts it: the last lines, then the first bytes of them."""

        def read_namespaced_pod_log(self, *_: str, container: str, tail_lines: int, limit_bytes: int = 10**9) -> str:
            lines = [f"{container} {number}: {'é' * 300}" for number in range(30_000)]
            return "\n".join([*lines, "CUDA out of memory"][-tail_lines:])[:limit_bytes]

    class Objects:
        kube = SimpleNamespace(core=Core(), namespace="team")

        def list(self, *_: str) -> list[dict[str, object]]:
            return [{"metadata": {"name": "job-0"}, "spec": {"containers": [{"name": "trainer"}]}}]

    objects: Any = Objects()
    ((name, content),) = bundle._logs(objects, "job")
    assert name == "logs/job-0.trainer.log"
    assert content.decode().endswith("CUDA out of memory")
    assert len(content) < 5_000_100
