"""What the restricted Pod Security Standard asks of a pod, with the user who owns the files of the store."""

from __future__ import annotations

from typing import Any

_USER = 10001


def pod_security() -> dict[str, Any]:
    """`securityContext` of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """`securityContext` of a container."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
