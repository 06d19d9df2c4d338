"""Objects of Hone for a cluster in which everything is real, and waiting for what becomes of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hone_dev.cluster.node import NAME as NODE

HANG = 15 * 60.0  # seconds; a guard against hanging on a busy machine, not an expectation
ROWS = [{"prompt": f"What is {n} and one?", "completion": f"It is {n + 1}."} for n in range(40)]


def lines(rows: list[dict[str, Any]]) -> str:
    """JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def config_map(name: str, data: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data, **more}


def secret(name: str, key: str, value: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: value}}


def dataset(name: str, key: str, **spec: Any) -> dict[str, Any]:
    """A Dataset of one file of the ConfigMap `files`; keyword arguments are fields of the spec."""
    source = {"uri": f"configmap://files/{key}"} | spec.pop("source", {})
    body = {"source": source, "splits": {"validation": "10%"}, **spec}
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": name}, "spec": body}


def job(name: str, model: dict[str, str], **spec: Any) -> dict[str, Any]:
    """A FineTuneJob of two steps on the Dataset `good`; keyword arguments are fields of the spec."""
    body = {
        "model": model,
        "datasets": [{"name": "good"}],
        "training": {"maxSteps": 2},
        "resources": {"cpu": "100m", "memory": "2Gi"},
        "output": {"modelName": name},
        **spec,
    }
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}, "spec": body}


def condition(kubectl: Any, kind: str, name: str, type_: str) -> dict[str, Any]:
    """The condition; empty before there is one."""
    return conditions(kubectl.get(kind, name)).get(type_, {})


def conditions(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By type."""
    return {c["type"]: c for c in body.get("status", {}).get("conditions", ())}


def wait(check: Callable[[], Any], what: Callable[[], Any], every: float = 1.0) -> Any:
    """The first true value of `check`, asked every so many seconds; fails with `what` when there never is one."""
    deadline = time.monotonic() + HANG
    while not (found := check()):
        assert time.monotonic() < deadline, what()
        time.sleep(every)
    return found


def reason_becomes(kubectl: Any, kind: str, name: str, type_: str, reason: str) -> dict[str, Any]:
    """The condition, once it has this reason; fails at once when a run has come to another end."""

    def reached() -> dict[str, Any] | None:
        now = conditions(kubectl.get(kind, name))
        if now.get(type_, {}).get("reason") == reason:
            return now[type_]
        assert now.get("Finished", {}).get("status") != "True", f"{name} ended before {type_} was {reason}: {now}"
        return None

    return wait(reached, lambda: f"{kind} {name}: {condition(kubectl, kind, name, type_)} instead of {reason}")


def failure(kubectl: Any, name: str) -> dict[str, Any]:
    """status.failure of a FineTuneJob, once it has failed."""
    reason_becomes(kubectl, "ftj", name, "Finished", "Failed")
    return kubectl.get("ftj", name)["status"]["failure"]


def training(kubectl: Any, kind: str = "jobs", of: str | None = None) -> list[dict[str, Any]]:
    """The Jobs (or pods) that train, of all FineTuneJobs or of one."""
    selector = "hone.dev/component=training" + (f",hone.dev/finetunejob={of}" if of else "")
    return kubectl.get(kind, f"--selector={selector}")["items"]


def approve(kubectl: Any, version: str, state: str = "Approved") -> None:
    """A decision about a ModelVersion, by whoever kubectl is."""
    by = kubectl("auth", "whoami", "--output=jsonpath={.status.userInfo.username}")
    patch = {"spec": {"approval": {"state": state, "by": by}}}
    kubectl("patch", "mv", version, "--type=merge", "--patch", json.dumps(patch))


def kill_processes_of(pod: dict[str, Any]) -> None:
    """SIGKILL to all processes of a pod, as the kernel does when memory is short."""
    pids = processes_of(pod, b"hone_trainer")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert pids, f"no process of pod {pod['metadata']['name']} was found"


def kill_a_pod_at_work(kubectl: Any, component: str) -> str:
    """SIGKILL to a pod that shares the work and does not lead it; returns its name when it has failed."""

    def at_work() -> dict[str, Any] | None:
        for pod in kubectl.get("pods", f"--selector=hone.dev/component={component}")["items"]:
            index = pod["metadata"]["labels"].get("batch.kubernetes.io/job-completion-index")
            if index != "0" and processes_of(pod, b"hone_trainer"):
                return dict(pod)
        return None

    victim = wait(at_work, lambda: kubectl.get("pods"), every=0.1)
    kill_processes_of(victim)
    name = str(victim["metadata"]["name"])
    wait(lambda: kubectl.get("pod", name)["status"]["phase"] == "Failed", lambda: kubectl.get("pod", name)["status"])
    return name


def processes_of(pod: dict[str, Any], program: bytes) -> list[int]:
    """The process ids of a pod whose command line has these bytes."""
    uid = pod["metadata"]["uid"]
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended
                group = (folder / "cgroup").read_text()
                if (uid in group or uid.replace("-", "_") in group) and program in (folder / "cmdline").read_bytes():
                    pids.append(int(folder.name))
    return pids


@contextmanager
def small_volume(kubectl: Any, claim: str, mebibytes: int, folder: Path) -> Iterator[Path]:
    """A claim whose volume is a file system of this size on the node; at the end, nothing may use it any more."""
    folder.mkdir()
    options = f"size={mebibytes}m,mode=0777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "hone-tests", folder], check=True)
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": "small"}
    volume = spec | {
        "capacity": {"storage": f"{mebibytes}Mi"},
        "local": {"path": str(folder)},
        "claimRef": {"namespace": kubectl.namespace, "name": claim},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        "persistentVolumeReclaimPolicy": "Retain",
    }
    spec |= {"resources": {"requests": {"storage": f"{mebibytes}Mi"}}, "volumeName": f"{kubectl.namespace}-{claim}"}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": spec["volumeName"]}, "spec": volume},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "labels": {"hone.dev/component": "upload"}},
            "spec": spec,
        },
    )
    try:
        yield folder
        kubectl("delete", "pvc", claim, "--ignore-not-found", "--timeout=15m")
        kubectl("delete", "pv", spec["volumeName"], "--timeout=15m")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, left: int) -> Path:
    """A file that takes the room of a small volume except so many bytes."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free - left)
    return filler
