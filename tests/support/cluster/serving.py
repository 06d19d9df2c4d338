"""Servers behind an OpenAI-compatible API as pods, which answer those who have their key."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from support.cluster import live

KEY = "sk-of-the-test-0123456789"
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def server(
    name: str, image: str, command: list[str], programs: dict[str, Path], env: dict[str, str], **requests: str
) -> list[dict[str, Any]]:
    """A pod that runs the command and listens on port 8000, its Service of the same name, Secret hone-<name> with KEY.

    Args:
        programs: files by their path below /program.
        requests: of cpu and memory.
    """
    keys = {path: path.replace("/", ".") for path in programs}
    container = {
        "name": "server",
        "image": image,
        "command": command,
        "env": [
            *({"name": key, "value": value} for key, value in env.items()),
            {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": f"hone-{name}", "key": "API_KEY"}}},
        ],
        "resources": {"requests": requests},
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 2},
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "program", "mountPath": "/program"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    files = [{"key": key, "path": path} for path, key in keys.items()]
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "program", "configMap": {"name": name, "items": files}}, {"name": "tmp", "emptyDir": {}}],
    }
    meta = {"name": name, "labels": {"app": name}}
    service = {"selector": {"app": name}, "ports": [{"port": 8000}]}
    return [
        live.secret(f"hone-{name}", "API_KEY", KEY),
        live.config_map(name, {keys[path]: file.read_text() for path, file in programs.items()}),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service},
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod},
    ]


def check_nothing_reveals_the_key(kubectl: Any, component: str) -> None:
    """Neither objects nor logs of the component's pods hold it, except for the Secret."""
    pods = [p["metadata"]["name"] for p in kubectl.get("pods", f"--selector=hone.dev/component={component}")["items"]]
    told = kubectl("get", "dset,ftj,mv,jobs,pods,configmaps,events", "--output=yaml")
    told += "".join(kubectl("logs", pod) for pod in pods)
    assert KEY not in told
    assert base64.b64encode(KEY.encode()).decode() not in told
