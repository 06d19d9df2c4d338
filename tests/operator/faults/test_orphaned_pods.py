"""`kubectl delete job --cascade=orphan`: the pods go on without their Job, and no other attempt writes meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from support.cluster.hand import Namespace

pytestmark = pytest.mark.apiserver


def orphan(namespace: Namespace, job: str, pods: list[str]) -> None:
    """What the garbage collector does, which does not run here."""
    for pod in pods:
        namespace.patch("Pod", pod, {"metadata": {"ownerReferences": None}})
    namespace.delete("Job", job)


@pytest.mark.faults("O19")
def test_the_next_attempt_waits_for_pods_that_were_left_behind(namespace: Namespace, operator: Any, spec: Any) -> None:
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    pods = namespace.start_pods("run-1")
    namespace.until(lambda: namespace.get("FineTuneJob", "run").get("status", {}).get("phase") == "Running", "Running")
    orphan(namespace, "run-1", pods)

    def waits() -> bool:
        return namespace.condition("FineTuneJob", "run", "Running").get("reason") == "Stopping"

    namespace.until(waits, "it waits for the pods")
    message = namespace.condition("FineTuneJob", "run", "Running")["message"]
    assert f"kubectl delete pod {' '.join(sorted(pods))} -n {namespace.name}" in message
    operator.kill()
    operator.start()
    namespace.until(operator.ready, "another operator has looked at everything")
    assert waits()
    assert namespace.names("Job") == []
    for pod in pods[:-1]:
        namespace.end_pod(pod, 137)
    namespace.delete("Pod", pods[-1])
    namespace.until(lambda: namespace.get("Job", "run-2"), "attempt 2")
