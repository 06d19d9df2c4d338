"""Kueue with a real API server and Job controller: it enforces the quota and admits the next Job. No pod runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.cluster.kube import Kube, connect, wait_until

from hone_dev.cluster import kueue
from hone_dev.cluster.controlplane import control_plane

pytestmark = pytest.mark.apiserver
API_VERSION = "kueue.x-k8s.io/v1beta2"
JOBS = "/apis/batch/v1/namespaces/default/jobs"


def quota(kube: Kube, cpus: str) -> None:
    """A LocalQueue `team` in namespace default for so many CPUs."""

    def add(kind: str, path: str, name: str, spec: Any) -> None:
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        kube.call("POST", f"/apis/{API_VERSION}{path}", body)

    cpu = {"name": "cpu", "nominalQuota": cpus}
    group = {"coveredResources": ["cpu"], "flavors": [{"name": "any", "resources": [cpu]}]}
    add("ResourceFlavor", "/resourceflavors", "any", {})
    add("ClusterQueue", "/clusterqueues", "all", {"namespaceSelector": {}, "resourceGroups": [group]})
    add("LocalQueue", "/namespaces/default/localqueues", "team", {"clusterQueue": "all"})


def job(name: str) -> dict[str, Any]:
    container = {"name": "c", "image": "example.org/x", "resources": {"requests": {"cpu": "1"}}}
    pod = {"containers": [container], "restartPolicy": "Never"}
    meta = {"name": name, "labels": {"kueue.x-k8s.io/queue-name": "team"}}
    return {"metadata": meta, "spec": {"template": {"spec": pod}}}


def test_a_job_waits_until_quota_is_free(tmp_path: Path) -> None:
    with control_plane(tmp_path / "cluster", controllers=True, addons=(kueue.component,), garbage="400") as kubeconfig:
        kube = connect(kubeconfig, tmp_path)
        quota(kube, "1")

        def suspended(name: str) -> bool:
            return bool(kube.call("GET", f"{JOBS}/{name}")["spec"]["suspend"])

        kube.call("POST", JOBS, job("first"))
        wait_until(lambda: not suspended("first"), "the first Job is admitted")
        kube.call("POST", JOBS, job("second"))

        def why() -> str:
            workloads = kube.call("GET", f"/apis/{API_VERSION}/namespaces/default/workloads")["items"]
            second = [w for w in workloads if w["metadata"]["ownerReferences"][0]["name"] == "second"]
            conditions = (second[0].get("status") or {}).get("conditions", []) if second else []
            return next((c["message"] for c in conditions if c["type"] == "QuotaReserved"), "")

        assert "insufficient unused quota" in wait_until(why, "Kueue says why the second Job waits")
        assert suspended("second")
        kube.call("DELETE", f"{JOBS}/first?propagationPolicy=Background")
        wait_until(lambda: not suspended("second"), "the second Job is admitted")
