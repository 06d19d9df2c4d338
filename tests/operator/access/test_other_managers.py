"""Fields of a status that another manager wrote with force: what is not true of the run does not stay."""

from __future__ import annotations

from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.kube import HONE

pytestmark = [pytest.mark.apiserver, pytest.mark.attack("objects at the API server")]
RECORD = {"jobName": "run-9", "startTime": "2026-01-02T03:04:05Z", "outcome": "Running"}


def force(namespace: Namespace, status: dict[str, Any]) -> None:
    """Apply a status as a manager of one's own."""
    path = f"{HONE}/namespaces/{namespace.name}/finetunejobs/run/status?fieldManager=other&force=true"
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "run"}, "status": status}
    namespace.kube.call("PATCH", path, body, "application/apply-patch+yaml")


@pytest.mark.parametrize("number", [2, 7])
def test_what_is_not_true_of_a_run_does_not_stay(namespace: Namespace, operator: Any, spec: Any, number: int) -> None:
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    namespace.start_pods("run-1")
    namespace.until(lambda: namespace.get("FineTuneJob", "run").get("status", {}).get("phase") == "Running", "Running")
    force(namespace, {"modelVersionName": "evil", "attempts": [RECORD | {"number": number}]})

    def is_true() -> bool:
        status = namespace.get("FineTuneJob", "run")["status"]
        return "modelVersionName" not in status and [a["number"] for a in status["attempts"]] == [1]

    namespace.until(is_true, "only what the operator knows")
    force(namespace, {"modelVersionName": "again"})  # the operator has not come to own it
    namespace.until(is_true, "only what the operator knows")
    assert namespace.names("Job") == ["run-1"]
    assert namespace.get("FineTuneJob", "run")["status"]["phase"] == "Running"
