"""The pod that a review runs in: image, store and Pod Security of the Dataset's own Job, and nothing else of it."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from typing import Any

TOKEN_ENV, REVIEWER_ENV = "HONE_REVIEW_TOKEN", "HONE_REVIEWER"
PORT = 8080
LISTENING = "The review listens."
"""What the pod's log says once it serves."""
BATCH = "/batch"
STORE, SCRATCH = "store", "tmp"
_SECONDS = 12 * 3600
"""A pod that its reviewer's machine could not delete goes by then."""


def review_pod(
    dataset: Mapping[str, Any], template: Mapping[str, Any], folder: str, token: str, reviewer: str
) -> dict[str, Any]:
    """A pod that serves one batch on its own loopback: only a port-forward reaches it.

    Args:
        template: of the Job that made the batch.
        folder: of the batch, below the store; the pod sees no more of the store.
    """
    meta = dataset["metadata"]
    spec: dict[str, Any] = copy.deepcopy(dict(template["spec"]))
    container = spec["containers"][0]
    mounts = [{"name": STORE, "mountPath": BATCH, "subPath": folder}, {"name": SCRATCH, "mountPath": "/tmp"}]
    environment = {TOKEN_ENV: token, REVIEWER_ENV: reviewer, "HOME": "/tmp", "PYTHONUNBUFFERED": "1"}
    container |= {
        "name": "review",
        "command": ["python", "-m", "hone_cli", "dataset", "serve-review", BATCH],
        # The kubelet would expand $(VAR).
        "env": [{"name": name, "value": value.replace("$", "$$")} for name, value in environment.items()],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "volumeMounts": mounts,
    }
    spec |= {
        "containers": [container],
        "volumes": [volume for volume in spec["volumes"] if volume["name"] in (STORE, SCRATCH)],
        "activeDeadlineSeconds": _SECONDS,
        "terminationGracePeriodSeconds": 5,
    }
    owner = {"apiVersion": dataset["apiVersion"], "kind": "Dataset", "name": meta["name"], "uid": meta["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{meta['name'][:45].rstrip('-')}-review-{secrets.token_hex(4)}",
            "namespace": meta["namespace"],
            "labels": {"app.kubernetes.io/managed-by": "hone", "hone.dev/component": "review"},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }
