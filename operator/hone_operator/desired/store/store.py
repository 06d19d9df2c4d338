"""The namespace's store: one volume claim, shared by all jobs, owned by none."""

from typing import Any

from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform


def claim(namespace: str, platform: Platform) -> dict[str, Any]:
    """PersistentVolumeClaim without owner: deleting a job or the operator never deletes data or models."""
    spec: dict[str, Any] = {
        "accessModes": [platform.store.access_mode],
        "resources": {"requests": {"storage": platform.store.size}},
    }
    if platform.store.storage_class_name:
        spec["storageClassName"] = platform.store.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": platform.store.claim_name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": names.FIELD_MANAGER},
        },
        "spec": spec,
    }
