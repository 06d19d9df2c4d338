"""A real API server with our definitions, the operator as a process, and a hand that plays kubelet and controllers."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

ROOT = Path(__file__).resolve().parents[2]
HONE = "/apis/hone.dev/v1alpha1"
GUARD_SECONDS = 60.0
"""A hang guard, not a limit: everything here takes a fraction of it."""
PLURAL = {
    "FineTuneJob": (HONE, "finetunejobs"),
    "Dataset": (HONE, "datasets"),
    "ModelVersion": (HONE, "modelversions"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Pod": ("/api/v1", "pods"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Service": ("/api/v1", "services"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Event": ("/api/v1", "events"),
}


class Kube:
    """Raw access to the API server as its administrator."""

    def __init__(self, kubeconfig: Path, folder: Path):
        document = yaml.safe_load(kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self.server = cluster["server"]
        for name, text in (
            ("ca.crt", cluster["certificate-authority-data"]),
            ("tls.crt", user["client-certificate-data"]),
            ("tls.key", user["client-key-data"]),
        ):
            (folder / name).write_bytes(base64.b64decode(text))
        self.folder = folder
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(folder / "ca.crt")
        self._session.cert = (str(folder / "tls.crt"), str(folder / "tls.key"))

    def call(self, verb: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        answer = self._session.request(
            verb,
            self.server + path,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type},
            timeout=GUARD_SECONDS,
        )
        if answer.status_code >= 400:
            raise RuntimeError(f"{verb} {path}: {answer.status_code} {answer.text[:800]}")
        return answer.json()


def path(kind: str, namespace: str, name: str = "", sub: str = "") -> str:
    prefix, plural = PLURAL[kind]
    return "/".join(p for p in (f"{prefix}/namespaces/{namespace}/{plural}", name, sub) if p)


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

    def dataset(self, name: str = "rows") -> None:
        """A Dataset that has been materialised."""
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
            "digest": "sha256:" + "0" * 64,
            "splits": [{"name": "train", "rows": 90}, {"name": "validation", "rows": 10}],
        }
        self.patch("Dataset", name, {"status": status}, "status")

    def start_pods(self, job: str) -> list[str]:
        """As Job controller, scheduler and kubelet: every pod of the Job runs."""
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
            running = {
                "phase": "Running",
                "conditions": [{"type": "PodScheduled", "status": "True"}],
                "containerStatuses": [container_status({"running": {"startedAt": now()}})],
            }
            self.patch("Pod", name, {"status": running}, "status")
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


def wait_until(check: Callable[[], Any], what: str) -> Any:
    """The first true value of `check`."""
    end = time.monotonic() + GUARD_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(RuntimeError):
            if value := check():
                return value
        time.sleep(0.03)
    raise AssertionError(f"did not come about: {what}")


def training_result() -> dict[str, Any]:
    artifact = {"format": "adapter", "uri": "adapter", "digest": "sha256:" + "a" * 64, "sizeBytes": 7}
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


@dataclass
class Operator:
    """The operator as a process."""

    kubeconfig: Path
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    probes: int = 0

    def start(self) -> Operator:
        ports = free_ports(2)
        self.probes = ports[1]
        env = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "HONE_NAMESPACE": "hone-system",
            "HONE_TRAINER__IMAGE": "example.org/hone/trainer:test",
            "HONE_LOG__FORMAT": "text",
            "HONE_PORTS__METRICS": str(ports[0]),
            "HONE_PORTS__PROBES": str(ports[1]),
            **self.env,
        }
        with (self.folder / "operator.log").open("ab") as out:
            self.process = subprocess.Popen([sys.executable, "-m", "hone_operator"], env=env, stdout=out, stderr=out)
        return self

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ready(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.probes}/readyz", timeout=5).ok
        except requests.ConnectionError as error:
            if not self.alive():
                raise AssertionError(f"the operator ended:\n{self.log()}") from error
            return False

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return self.process.wait(GUARD_SECONDS)

    def log(self) -> str:
        return (self.folder / "operator.log").read_text()[-6000:]


@pytest.fixture(scope="session", name="free_ports")
def free_ports_fixture() -> Callable[[int], list[int]]:
    """Ports of loopback that nobody listens on now."""
    return free_ports


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="session")
def kube(apiserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Kube:
    """The API server with our definitions established."""
    kube = Kube(apiserver, tmp_path_factory.mktemp("kube"))
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        body = yaml.safe_load(file.read_text())
        # Applied, not created: the chart's tests install the same definitions, and keep them.
        target = f"{crds}/{body['metadata']['name']}?fieldManager=tests&force=true"
        kube.call("PATCH", target, body, "application/apply-patch+yaml")
    wait_until(lambda: [kube.call("GET", f"{HONE}/{p}") for p in ("finetunejobs", "datasets", "modelversions")], "CRDs")
    return kube


@pytest.fixture(scope="session")
def result() -> dict[str, Any]:
    """What the trainer leaves after a run that succeeded."""
    return training_result()


@pytest.fixture(scope="session")
def spec() -> Callable[..., dict[str, Any]]:
    """Makes the spec of a FineTuneJob."""
    return fine_tune_job


@pytest.fixture
def namespace(kube: Kube) -> Iterator[Namespace]:
    """A fresh namespace with what every tenant has."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    kube.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    space = Namespace(kube, name)
    space.create("ServiceAccount", "default")
    for claim in ("hone-store", "models", "data"):
        space.claim(claim)
    yield space
    for kind in ("FineTuneJob", "Dataset", "ModelVersion", "Job", "Pod"):
        for each in space.names(kind):
            with contextlib.suppress(RuntimeError):
                space.delete(kind, each)


@pytest.fixture
def start_operator(tmp_path: Path) -> Iterator[Callable[[Path, dict[str, str]], Operator]]:
    """Starts the operator as the user of a kubeconfig, with settings from this environment."""
    started: list[Operator] = []

    def start(kubeconfig: Path, env: dict[str, str]) -> Operator:
        started.append(Operator(kubeconfig, tmp_path, env).start())
        return started[-1]

    yield start
    for each in started:
        if each.alive():
            each.kill()


@pytest.fixture
def operator(apiserver: Path, namespace: Namespace, tmp_path: Path) -> Iterator[Operator]:
    """The operator, watching the test's namespace only."""
    operator = Operator(apiserver, tmp_path, {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name])}).start()
    yield operator
    if operator.alive():
        operator.kill()
