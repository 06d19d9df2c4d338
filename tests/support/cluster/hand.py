"""A namespace in which a hand plays what does not run: scheduler, Job controller, kubelet."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from support.cluster.kube import PLURAL, Kube, path, wait_until
from support.lives.versions import version_spec

AT = "2026-01-01T00:00:00Z"


def conditions(*names: str) -> list[dict[str, str]]:
    """Conditions that are True since `AT`."""
    told = {"status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": AT}
    return [{"type": name, **told} for name in names]


@dataclass
class Namespace:
    """One namespace; everything by kind and name, and the parts that do not run here played by hand."""

    kube: Kube
    name: str

    def get(self, kind: str, name: str) -> Any:
        return self.kube.call("GET", path(kind, self.name, name))

    def list(self, kind: str) -> list[Any]:
        return self.kube.call("GET", path(kind, self.name))["items"]

    def names(self, kind: str) -> list[str]:
        return sorted(o["metadata"]["name"] for o in self.list(kind))

    def create(self, kind: str, name: str, spec: Any = None, **fields: Any) -> Any:
        version = PLURAL[kind][0].removeprefix("/apis/").removeprefix("/api/")
        body = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}
        if spec is not None:
            body["spec"] = spec
        return self.kube.call("POST", path(kind, self.name), body)

    def patch(self, kind: str, name: str, body: Any, sub: str = "") -> Any:
        return self.kube.call("PATCH", path(kind, self.name, name, sub), body, "application/merge-patch+json")

    def label(self, **labels: str | None) -> None:
        """Label the namespace itself; None removes a label."""
        body = {"metadata": {"labels": labels}}
        self.kube.call("PATCH", f"/api/v1/namespaces/{self.name}", body, "application/merge-patch+json")

    def delete(self, kind: str, name: str) -> None:
        options = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
        self.kube.call("DELETE", path(kind, self.name, name), options)

    def until(self, check: Callable[[], Any], what: str) -> Any:
        """The first true value of `check`."""
        return wait_until(check, what)

    def condition(self, kind: str, name: str, type_: str) -> Any:
        conditions = (self.get(kind, name).get("status") or {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == type_), {})

    # -- the parts that do not run here ----------------------------------------------------------

    def claim(self, name: str) -> None:
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        self.create("PersistentVolumeClaim", name, spec)

    def dataset(self, name: str = "rows", digit: str = "0", size: int = 1000) -> None:
        """A Dataset of so many bytes that has been materialized; its digest is that digit 64 times."""
        made = self.create("Dataset", name, {"source": {"uri": "pvc://data/rows.jsonl"}, "suspend": True})
        wait_until(lambda: self.condition("Dataset", name, "Ready"), "the operator has seen the Dataset")
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Materialized",
            "message": "",
            "observedGeneration": made["metadata"]["generation"],
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        status = {
            "observedGeneration": made["metadata"]["generation"],
            "conditions": [ready],
            "digest": f"sha256:{digit * 64}",
            "sizeBytes": size,
            "splits": [{"name": "train", "rows": 90}, {"name": "validation", "rows": 10}],
        }
        self.patch("Dataset", name, {"status": status}, "status")

    def start_pods(self, job: str, without_a_node: int = 0) -> list[str]:
        """As Job controller, scheduler and kubelet: every pod of the Job runs, except the last ones."""
        body = self.get("Job", job)
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job,
            "uid": body["metadata"]["uid"],
            "controller": True,
        }
        names = []
        for rank in range(body["spec"]["completions"]):
            template = body["spec"]["template"]
            labels = {
                **template["metadata"]["labels"],
                "batch.kubernetes.io/job-name": job,
                "batch.kubernetes.io/job-completion-index": str(rank),
            }
            name = f"{job}-{rank}-{uuid.uuid4().hex[:5]}"
            metadata = {"name": name, "labels": labels, "ownerReferences": [owner]}
            self.kube.call(
                "POST",
                path("Pod", self.name),
                {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]},
            )
            waits = rank >= body["spec"]["completions"] - without_a_node
            self.patch("Pod", name, {"status": UNSCHEDULED if waits else running()}, "status")
            names.append(name)
        status = {"active": len(names), "startTime": body["status"].get("startTime") or now()}
        self.patch("Job", job, {"status": status}, "status")
        return names

    def end_pod(self, pod: str, exit_code: int, outcome: Any = None, **pod_status: Any) -> None:
        """As kubelet: the pod's container has ended."""
        state = {
            "exitCode": exit_code,
            "reason": "Completed" if exit_code == 0 else "Error",
            "startedAt": now(),
            "finishedAt": now(),
            "message": json.dumps(outcome) if outcome else "",
        }
        state |= pod_status.pop("terminated", {})
        status = {
            "phase": "Succeeded" if exit_code == 0 else "Failed",
            "containerStatuses": [container_status({"terminated": state, "running": None})],
            **pod_status,
        }
        self.patch("Pod", pod, {"status": status}, "status")

    def end_job(self, job: str, type_: str, reason: str = "", message: str = "") -> None:
        """As Job controller: the Job is Complete or Failed."""
        before = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[type_]
        conditions = [
            {
                "type": t,
                "status": "True",
                "reason": reason or type_,
                "message": message,
                "lastTransitionTime": now(),
            }
            for t in (before, type_)
        ]
        body = self.get("Job", job)
        status = {
            "conditions": conditions,
            "active": 0,
            "ready": 0,
            "startTime": body["status"].get("startTime") or now(),
            **({"completionTime": now(), "succeeded": body["spec"]["completions"]} if type_ == "Complete" else {}),
        }
        if type_ == "Complete":
            status["completedIndexes"] = _indexes(body["spec"]["completions"])
        self.patch("Job", job, {"status": status}, "status")

    def succeed(self, job: str, result: Any) -> None:
        """The whole of a Job that ends well; rank 0 leaves the result."""
        for rank, pod in enumerate(self.start_pods(job)):
            self.end_pod(pod, 0, {"result": result} if rank == 0 else None)
        self.end_job(job, "Complete")

    def fail(self, job: str, exit_code: int, failure: Any = None, **pod_status: Any) -> None:
        """The whole of a Job whose last rank fails."""
        pods = self.start_pods(job)
        self.end_pod(pods[-1], exit_code, {"failure": failure} if failure else None, **pod_status)
        self.end_job(job, "Failed", "PodFailurePolicy", f"Pod {pods[-1]} failed")


UNSCHEDULED = {
    "phase": "Pending",
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available."}
    ],
}


def running() -> dict[str, Any]:
    return {
        "phase": "Running",
        "conditions": [{"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [container_status({"running": {"startedAt": now()}})],
    }


def _indexes(count: int) -> str:
    return "0" if count == 1 else f"0-{count - 1}" if count > 2 else "0,1"


def container_status(state: Any) -> dict[str, Any]:
    return {
        "name": "trainer",
        "image": "trainer",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def version_of(model: str, number: int, submitter: str | None = None) -> dict[str, Any]:
    """A ModelVersion that a job of `submitter` made."""
    job = {"name": "j", "uid": "u"} | ({"submittedBy": submitter} if submitter else {})
    spec = version_spec("Adapter", "pvc://hone-store/x", "0", number, model, baseModel={"uri": "hf://a/b"}, job=job)
    meta = {"name": f"{model}-v{number}"}
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "ModelVersion", "metadata": meta, "spec": spec}


def training_result() -> dict[str, Any]:
    artifact = {"format": "Adapter", "uri": "adapter", "digest": "sha256:" + "a" * 64, "sizeBytes": 7}
    loss = {"name": "loss", "base": "3.9", "tuned": "2.1", "rows": 10}
    return {"kind": "Training", "artifacts": [artifact], "numbers": [loss], "steps": 12}


def fine_tune_job(**spec: Any) -> dict[str, Any]:
    """The spec of a job of two nodes."""
    return {
        "model": {"uri": "pvc://models/smol"},
        "datasets": [{"name": "rows"}],
        "resources": {"nodes": 2, "cpu": "1", "memory": "1Gi"},
        "output": {"modelName": "tutor"},
        **spec,
    }
