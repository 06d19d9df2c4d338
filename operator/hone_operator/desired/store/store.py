"""The namespace's store: one volume claim, shared by all jobs, owned by none."""

from typing import Any

from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform


def claim(namespace: str, platform: Platform) -> dict[str, Any]:
    """PersistentVolumeClaim without owner: deleting a job or the operator never deletes data or models."""
    spec: dict[str, Any] = {
        "accessModes": [platform.store_access_mode],
        "resources": {"requests": {"storage": platform.store_size}},
    }
    if platform.store_class:
        spec["storageClassName"] = platform.store_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": platform.store_claim,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": names.FIELD_MANAGER},
        },
        "spec": spec,
    }
