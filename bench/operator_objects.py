"""What the benchmark of the operator creates in an API server: definitions, a namespace, a Dataset, FineTuneJobs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import yaml
from kubeapi import HONE, KubeApi
from measured_operator import until

ROOT = Path(__file__).resolve().parents[1]


def dataset() -> dict[str, Any]:
    return {
        "apiVersion": "hone.dev/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": "rows"},
        "spec": {"source": {"uri": "pvc://data/rows.jsonl"}, "suspend": True},
    }


def dataset_status(generation: int) -> dict[str, Any]:
    """What the materializing Job would have led to: here no pod runs."""
    digest = "sha256:" + "0" * 64
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Materialized",
        "message": "",
        "observedGeneration": generation,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    return {
        "observedGeneration": generation,
        "phase": "Ready",
        "conditions": [ready],
        "digest": digest,
        "uri": f"pvc://hone-store/datasets/{'0' * 64}",
        "rows": 1000,
        "splits": [{"name": "train", "rows": 950}, {"name": "validation", "rows": 50}],
    }


def job(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "hone.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "pvc://models/SmolLM2-135M-Instruct"},
            "datasets": [{"name": "rows"}],
            "resources": {"nodes": 2, "cpu": "1", "memory": "1Gi"},
            "output": {"modelName": "bench"},
        },
    }


def claim(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


async def install(api: KubeApi) -> None:
    """Our definitions, and the operator's own namespace."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for crd in sorted((ROOT / "crds").glob("*.yaml")):
        await api.call("POST", definitions, yaml.safe_load(crd.read_text()))
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hone-system"}}
    await api.call("POST", "/api/v1/namespaces", namespace)
    await asyncio.sleep(3)  # the API server serves a new kind a moment later


async def prepare(api: KubeApi, namespace: str) -> None:
    """A namespace with the claims and the Ready Dataset that the jobs name."""
    await api.call(
        "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    )
    for name in ("models", "data", "hone-store"):
        await api.call("POST", f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", claim(name))
    path = f"{HONE}/namespaces/{namespace}/datasets"
    made = await api.call("POST", path, dataset())
    status = {"status": dataset_status(made["metadata"]["generation"])}
    await api.call("PATCH", f"{path}/rows/status", status, "application/merge-patch+json")


async def first_status(api: KubeApi, path: str, name: str) -> float:
    """Seconds from the creation of one job to its first status."""
    await api.call("POST", path, job(name))

    async def has_status() -> bool:
        return bool((await api.call("GET", f"{path}/{name}")).get("status", {}).get("conditions"))

    return await until(f"the status of {name}", has_status, every=0.01)
