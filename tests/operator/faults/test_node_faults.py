"""A node breaks under a run: the status names its fault, and the next attempt avoids it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.kube import path

pytestmark = pytest.mark.apiserver
XID = "[79] GPU has fallen off the bus - RecommendedAction: RESTART_BM"


def broken_node(namespace: Namespace) -> str:
    """A node as NVSentinel marks one with a fatal Xid."""
    name = f"gpu-{uuid.uuid4().hex[:8]}"
    namespace.kube.call("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    fault = {"type": "SysLogsXIDError", "status": "True", "reason": "SysLogsXIDErrorIsNotHealthy", "message": XID}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    status = {"status": {"conditions": [ready, fault]}}
    namespace.kube.call("PATCH", f"/api/v1/nodes/{name}/status", status, "application/merge-patch+json")
    return name


def test_the_next_attempt_avoids_a_node_with_a_fault(namespace: Namespace, operator: Any, spec: Any) -> None:
    node = broken_node(namespace)
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    crash(namespace, "run-1", node)

    job = namespace.until(lambda: namespace.get("Job", "run-2"), "attempt 2")
    (term,) = job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert term["preference"]["matchFields"] == [{"key": "metadata.name", "operator": "NotIn", "values": [node]}]
    record = namespace.until(lambda: closed(namespace, 1), "the record of attempt 1 is closed")
    assert (record["outcome"], record["reason"]) == ("Preempted", "NodeFault")
    assert record["faultyNodes"] == [node]
    namespace.until(lambda: any(XID in message for message in messages(namespace)), "an event names the Xid")

    crash(namespace, "run-2", node)  # a second crash on the same node counts as a restart
    again = namespace.until(lambda: closed(namespace, 2), "the record of attempt 2 is closed")
    assert (again["outcome"], again["reason"]) == ("Failed", "NodeFault")
    namespace.kube.call("DELETE", f"/api/v1/nodes/{node}")


def crash(namespace: Namespace, job: str, node: str) -> None:
    """The attempt's pods run on the node, and one of them ends without a report."""
    pods = namespace.start_pods(job)
    for pod in pods:
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"name": node}}
        namespace.kube.call("POST", f"{path('Pod', namespace.name, pod)}/binding", binding)
    namespace.end_pod(pods[0], 1)
    namespace.end_job(job, "Failed", "PodFailurePolicy", "Container hone failed")


def closed(namespace: Namespace, number: int) -> Any:
    records = namespace.get("FineTuneJob", "run")["status"]["attempts"]
    return next((record for record in records if record["number"] == number and "endTime" in record), None)


def messages(namespace: Namespace) -> list[str]:
    return [event.get("message") or "" for event in namespace.list("Event")]
