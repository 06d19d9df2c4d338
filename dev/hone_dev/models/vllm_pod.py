"""vLLM's build for CPUs in a pod, where the manifests of `hone serve` name an image for GPUs."""

from __future__ import annotations

import base64
import ctypes.util
from pathlib import Path
from typing import Any

from hone_dev.models import vllm

PROGRAM = "vllm-program"
SERVER = ["python3", "-m", "vllm.entrypoints.openai.api_server"]
"""As `vllm serve`: that program asks for a package of this name, which the build for CPUs is not."""


def volume(namespace: str, node: str) -> list[dict[str, Any]]:
    """A claim of the folder with vLLM's packages, and its shared library that the image lacks."""
    packages = vllm.python().parents[1] / "lib" / "python3.11" / "site-packages"
    name = volume_name(namespace)
    spec: dict[str, Any] = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    pv = {
        **spec,
        "capacity": {"storage": "10Gi"},
        "local": {"path": str(packages)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        "claimRef": {"namespace": namespace, "name": PROGRAM},
    }
    claim = {**spec, "volumeName": name, "resources": {"requests": {"storage": "10Gi"}}}
    library = Path("/lib/x86_64-linux-gnu") / str(ctypes.util.find_library("numa"))
    data = {library.name: base64.b64encode(library.read_bytes()).decode()}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": pv},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": PROGRAM}, "spec": claim},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": PROGRAM}, "binaryData": data},
    ]


def volume_name(namespace: str) -> str:
    """Name of its PersistentVolume."""
    return f"{namespace}-{PROGRAM}"


def on_cpus(deployment: dict[str, Any], longest: int = 128) -> dict[str, Any]:
    """The Deployment with vLLM from that claim, for a small model; what it loads stays as rendered.

    Args:
        longest: tokens of prompt and answer together.
    """
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    container["command"] = SERVER
    container["args"] += ["--dtype", "float32", "--enforce-eager", "--max-model-len", str(longest)]
    guard = [entry["value"] for entry in container["env"] if entry["name"] == "PYTHONPATH"]
    here = {"PYTHONPATH": ":".join(["/vllm", *guard]), "LD_LIBRARY_PATH": "/numa", "OMP_NUM_THREADS": "1", **vllm.EAGER}
    rendered = [entry for entry in container["env"] if entry["name"] not in here]
    container["env"] = [*rendered, *({"name": name, "value": value} for name, value in here.items())]
    mounts = (("packages", "/vllm"), ("numa", "/numa"))
    container["volumeMounts"] += [{"name": n, "mountPath": path, "readOnly": True} for n, path in mounts]
    claim = {"claimName": PROGRAM, "readOnly": True}
    pod["volumes"] += [
        {"name": "packages", "persistentVolumeClaim": claim},
        {"name": "numa", "configMap": {"name": PROGRAM}},
    ]
    return deployment
