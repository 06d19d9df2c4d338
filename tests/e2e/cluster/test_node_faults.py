"""A real node gets the condition that NVSentinel sets, and a run on it crashes. It is the only node of the cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.cluster.live import ROWS, config_map, dataset, job, kill_processes_of, lines, training, wait

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.usefixtures("hone")]
XID = "[79] GPU has fallen off the bus - RecommendedAction: RESTART_BM"


def mark(kubectl: Any, node: str, status: str) -> None:
    """Set the condition of a fatal Xid; other conditions stay."""
    fault = {"type": "SysLogsXIDError", "status": status, "reason": "SysLogsXIDError", "message": XID}
    patch = json.dumps({"status": {"conditions": [fault]}})
    kubectl("patch", "node", node, "--subresource=status", "--type=strategic", f"--patch={patch}")


def attempts(kubectl: Any) -> list[dict[str, Any]]:
    return (kubectl.get("ftj", "run").get("status") or {}).get("attempts") or []


def test_a_faulty_node_is_named_and_the_run_goes_on_where_there_is_no_other(kubectl: Any, tiny: str) -> None:
    kubectl.apply(config_map("files", {"good.jsonl": lines(ROWS)}), dataset("good", "good.jsonl"))
    kubectl.apply(job("run", {"uri": tiny}, training={"maxSteps": 1_000_000, "batchSize": 2}))

    def steps(number: int) -> bool:
        records = attempts(kubectl)
        return len(records) == number and records[-1].get("endStep", 0) > records[-1].get("startStep", 0) + 1

    wait(lambda: steps(1), lambda: kubectl.get("ftj", "run"))
    (pod,) = training(kubectl, "pods")
    node = pod["spec"]["nodeName"]
    mark(kubectl, node, "True")
    try:
        kill_processes_of(pod)
        wait(lambda: steps(2), lambda: kubectl.get("ftj", "run"))
    finally:
        mark(kubectl, node, "False")
    first = attempts(kubectl)[0]
    assert (first["reason"], first["outcome"], first["faultyNodes"]) == ("NodeFault", "Preempted", [node])
    events = kubectl.get("events", "--field-selector=involvedObject.kind=FineTuneJob")["items"]
    assert any(f"Node {node} has SysLogsXIDError=True: {XID}" in event["message"] for event in events)
