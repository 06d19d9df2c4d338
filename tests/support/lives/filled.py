"""A namespace that every command of `hone` finds something in, and what of it is stored."""

from __future__ import annotations

from typing import Any

from support.cluster.hand import Namespace

AT = "2026-01-01T00:00:00Z"
KINDS = ("ConfigMap", "PersistentVolumeClaim", "Pod", "Dataset", "Model", "ModelVersion", "FineTuneJob")
IMAGE = {"image": "hone/trainer:1", "imagePullPolicy": "Never", "imagePullSecrets": []}


def stored(namespace: Namespace) -> dict[str, Any]:
    """All objects that a command could have made or changed, without what the API server keeps itself."""
    return {
        f"{kind} {each['metadata']['name']}": {
            key: value for key, value in each.items() if key not in ("metadata", "status")
        }
        | {"deleted": "deletionTimestamp" in each["metadata"], "version": each["metadata"]["resourceVersion"]}
        for kind in KINDS
        for each in namespace.list(kind)
        if each["metadata"]["name"] != "kube-root-ca.crt"
    }


def fill(namespace: Namespace) -> None:
    """A Dataset with generated rows, a job, and a model with a version that is Ready."""
    base = {"uri": "hf://owner/base"}
    namespace.create("Dataset", "synthetic", {"source": {"uri": "pvc://data/rows.jsonl"}, "suspend": True})
    review = {
        "synthetic": {"folder": "synthesis/synthetic/0123456789ab"},
        "reviewPod": {**IMAGE, "claim": "hone-store"},
    }
    namespace.patch("Dataset", "synthetic", {"status": review}, "status")
    spec = {"model": base, "datasets": [{"name": "rows"}], "output": {"modelName": "bot"}}
    namespace.create("FineTuneJob", "job", spec)
    namespace.create("Model", "bot", {"retrain": {"fineTuneJob": "job"}})
    artifact = {"format": "Adapter", "uri": "pvc://s/x", "digest": f"sha256:{'0' * 64}", "sizeBytes": 1}
    on_volume = {"uri": "pvc://models/smol", "location": "pvc://models/smol"}
    lineage = {"baseModel": on_volume, "datasets": [], "job": {"name": "j", "uid": "u"}, "method": "SFT", "seed": 1}
    version = {"modelName": "bot", "version": 1, "artifacts": [artifact], "lineage": lineage}
    namespace.create("ModelVersion", "bot-v1", version)
    ready = {"type": "Ready", "status": "True", "reason": "Verified", "message": "", "lastTransitionTime": AT}
    status = {"conditions": [ready], "downloadPod": IMAGE, "base": "pvc://models/smol"}
    namespace.patch("ModelVersion", "bot-v1", {"status": status}, "status")
