"""A job with resources.minNodes on a real API server: one attempt ends for want of a node, the next has fewer, then
all again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.operator_process import Operator

pytestmark = pytest.mark.apiserver


def plan_of(namespace: Namespace, job: str) -> Any:
    body = namespace.get("Job", job)
    volumes = body["spec"]["template"]["spec"]["volumes"]
    (name,) = (v["configMap"]["name"] for v in volumes if "configMap" in v)
    return json.loads(namespace.get("ConfigMap", name)["data"]["plan.json"])


def attempts(namespace: Namespace) -> list[tuple[str, int]]:
    status = namespace.get("FineTuneJob", "run").get("status") or {}
    return [(each["outcome"], each["nodes"]) for each in status.get("attempts", [])]


def events(namespace: Namespace) -> list[str]:
    messages = [event["message"] for event in namespace.list("Event") if event["reason"] == "Resized"]
    return [message.partition(" ends. ")[2] or message for message in sorted(messages)]


def test_an_attempt_shrinks_to_the_free_nodes_and_grows_after_an_interruption(
    apiserver: Path,
    namespace: Namespace,
    start_operator: Callable[[Path, dict[str, str]], Operator],
    spec: Callable[..., dict[str, Any]],
) -> None:
    watched = json.dumps([namespace.name])
    env = {"HONE_WATCH_NAMESPACES": watched, "HONE_TRAINER__FEWER_NODES_AFTER_SECONDS": "1"}
    operator = start_operator(apiserver, env)
    namespace.until(operator.ready, "ready")
    namespace.dataset()
    resources = {"nodes": 2, "minNodes": 1, "cpu": "1", "memory": "1Gi"}
    namespace.create("FineTuneJob", "run", spec(resources=resources, restarts={"maxRestarts": 0, "maxPreemptions": 1}))
    namespace.until(lambda: "run-1" in namespace.names("Job"), "attempt 1")
    assert plan_of(namespace, "run-1")["nodes"] == 2
    pods = namespace.start_pods("run-1", without_a_node=1)
    namespace.until(lambda: "run-1" not in namespace.names("Job"), "the end of attempt 1")
    assert "run-2" not in namespace.names("Job"), "its pods have not ended"
    for pod in pods:
        namespace.delete("Pod", pod)
    namespace.until(lambda: "run-2" in namespace.names("Job"), "attempt 2")
    assert (plan_of(namespace, "run-2")["nodes"], plan_of(namespace, "run-2")["maxNodes"]) == (1, 2)
    assert "run-2" not in namespace.names("Service")
    (pod,) = namespace.start_pods("run-2")
    namespace.until(lambda: namespace.condition("FineTuneJob", "run", "Running").get("status") == "True", "Running")
    assert attempts(namespace) == [("Resized", 2), ("Running", 1)]
    drained = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    namespace.end_pod(pod, 75, conditions=[{"type": "PodScheduled", "status": "True"}, drained])
    namespace.end_job("run-2", "Failed", "PodFailurePolicy", f"Pod {pod} was evicted")
    namespace.until(lambda: "run-3" in namespace.names("Job"), "attempt 3")
    assert plan_of(namespace, "run-3")["nodes"] == 2
    assert "run-3" in namespace.names("Service")
    namespace.until(lambda: len(attempts(namespace)) == 3, "the record of attempt 3")
    assert attempts(namespace) == [("Resized", 2), ("Preempted", 1), ("Running", 2)]
    namespace.until(lambda: len(events(namespace)) == 2, "both events")
    assert events(namespace) == [
        "Attempt 2 asks for 1 node; training.batchSize stays 8.",
        "Attempt 3 asks for 2 nodes again; attempt 2 had 1. training.batchSize stays 8.",
    ]
    assert operator.stop() == 0
