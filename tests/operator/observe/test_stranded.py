"""A pod that somebody left without its Job and its plan: the run does not wait for one that can never start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.cluster.memory_cluster import MemoryCluster

from hone_operator.observe.jobs import JobReader

pytestmark = pytest.mark.pure
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
IN_VAIN = 'MountVolume.SetUp failed for volume "plan" : configmap "run-1-plan" not found'


def pod(cluster: MemoryCluster, seconds: int = 300, **status: Any) -> Any:
    """A pod that was scheduled so many seconds ago."""
    since = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": since}
    spec = {"volumes": [{"name": "plan", "configMap": {"name": "run-1-plan"}}, {"name": "tmp", "emptyDir": {}}]}
    status = {"phase": "Pending", "conditions": [scheduled], **status}
    return cluster.add(
        {"kind": "Pod", "metadata": {"name": "run-1-0", "namespace": "ns"}, "spec": spec, "status": status}
    )


PULLING = {"containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": "ContainerCreating"}}}]}
RUNNING = {"containerStatuses": [{"name": "trainer", "state": {"running": {}}}], "phase": "Running"}


@pytest.mark.parametrize(
    ("status", "words", "plan", "never"),
    [
        ({}, IN_VAIN, False, True),
        (PULLING, IN_VAIN, False, True),
        (PULLING, "", False, False),
        (PULLING, IN_VAIN.replace("run-1-plan", "another"), False, False),
        (RUNNING, IN_VAIN, False, False),
        ({}, IN_VAIN, True, False),
        ({"seconds": 1}, IN_VAIN, False, False),
    ],
    ids=["waits", "waits, older kubelet", "pulls its image", "another", "runs", "plan is there", "new"],
)
async def test_a_pod_never_starts_when_the_kubelet_did_not_find_its_plan(
    status: dict[str, Any], words: str, plan: bool, never: bool
) -> None:
    cluster = MemoryCluster(lambda: NOW.strftime("%Y-%m-%dT%H:%M:%SZ"))
    made = pod(cluster, **status)
    if plan:
        cluster.add({"kind": "ConfigMap", "metadata": {"name": "run-1-plan", "namespace": "ns"}})
    if words:
        cluster.events[made["metadata"]["uid"]] = {"reason": "FailedMount", "message": words}
    reader = JobReader(cluster, lambda: NOW)
    assert await reader.never_starts(made) is never
