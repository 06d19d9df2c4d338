"""The pod that a review runs in, from a fixed template.

A reviewer starts it with their own rights. So no part of it may come from an object that a tenant can write: image,
registry secrets and claim come from the Dataset's status, which only the operator writes; the rest is constant here.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hone_api.synthesis import REVIEW, ReviewPod
from hone_cli.reviews import ReviewError

DIGEST_ENV, REVIEWER_ENV = "HONE_REVIEW_TOKEN_SHA256", "HONE_REVIEWER"
PORT = 8080
LISTENING = "The review listens."
"""The line in the pod's log once it serves."""
BATCH = "/batch"
STORE, SCRATCH = "store", "tmp"
_USER = 10001
"""The user that owns the files of the store."""
_SECONDS = 12 * 3600
"""Time limit of a pod that the reviewer's machine could not delete."""


def review_pod(dataset: Mapping[str, Any], token_digest: str, reviewer: str) -> dict[str, Any]:
    """A pod that serves one batch on its own loopback: only a port-forward reaches it. It mounts nothing else of the
    store.

    Args:
        token_digest: from `server.digest`. Whoever may read pods can read it, but cannot derive the token from it.
        reviewer: the signature of the decisions.

    Raises:
        ReviewError: no rows are generated yet, or the status does not say what to start.
    """
    meta = dataset["metadata"]
    folder, platform = _batch_folder(dataset), _platform(dataset)
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
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _SECONDS,
            "terminationGracePeriodSeconds": 5,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(platform, folder, {DIGEST_ENV: token_digest, REVIEWER_ENV: reviewer})],
            "volumes": [
                {"name": STORE, "persistentVolumeClaim": {"claimName": platform.claim}},
                {"name": SCRATCH, "emptyDir": {"sizeLimit": "64Mi"}},
            ],
            "imagePullSecrets": [{"name": name} for name in platform.image_pull_secrets],
        },
    }


def _container(platform: ReviewPod, folder: str, env: Mapping[str, str]) -> dict[str, Any]:
    env = {**env, "HOME": "/tmp", "PYTHONUNBUFFERED": "1"}
    return {
        "name": "review",
        "image": platform.image,
        "imagePullPolicy": platform.image_pull_policy,
        "command": ["python", "-m", "hone_cli", "dataset", "serve-review", BATCH],
        # The kubelet would expand $(VAR).
        "env": [{"name": name, "value": value.replace("$", "$$")} for name, value in env.items()],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
            "limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "256Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": STORE, "mountPath": BATCH, "subPath": folder},
            {"name": SCRATCH, "mountPath": "/tmp"},
        ],
    }


def _batch_folder(dataset: Mapping[str, Any]) -> str:
    """The batch's folder in the store. A pod reported it, so check that it is a batch of this Dataset."""
    name = dataset["metadata"]["name"]
    folder = ((dataset.get("status") or {}).get("synthetic") or {}).get("folder")
    if not folder:
        raise ReviewError(f"Dataset {name} has no generated rows (yet): kubectl describe dataset {name}")
    if not re.fullmatch(rf"synthesis/{re.escape(name)}/[A-Za-z0-9_-]{{1,64}}", folder):
        raise ReviewError(
            f"status.synthetic.folder of Dataset {name} is {folder!r}, not a folder below synthesis/{name}/: no pod "
            "was started. A pod of the namespace reported it; look at who can make pods there."
        )
    return str(folder)


def _platform(dataset: Mapping[str, Any]) -> ReviewPod:
    meta = dataset["metadata"]
    reported = (dataset.get("status") or {}).get("reviewPod")
    if not reported:
        raise ReviewError(
            f"status.reviewPod of Dataset {meta['name']} is empty: its operator is older than this command (upgrade "
            f"the chart), or its rows are older than the operator: kubectl annotate dataset {meta['name']} --namespace "
            f"{meta['namespace']} --overwrite {REVIEW}=again"
        )
    try:
        return ReviewPod.model_validate(reported)
    except ValidationError as error:
        raise ReviewError(
            f"status.reviewPod of Dataset {meta['name']} is not what this version of hone knows: install the version "
            f"of hone that the cluster runs ({error.error_count()} fields differ)"
        ) from None
