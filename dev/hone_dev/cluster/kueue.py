"""Kueue, the real one: its manager as a process of this machine, and the objects of its chart."""

import base64
import json
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hone_dev.cluster import binaries
from hone_dev.cluster.controlplane import ControlPlane
from hone_dev.cluster.pki import write_private
from hone_dev.cluster.process import Component, answers
from hone_dev.tools.shell import run
from hone_dev.tools.tools import helm

NAME, NAMESPACE, USER = "kueue", "kueue-system", "hone:kueue"
MODULE = "sigs.k8s.io/kueue"
SERVICE, SECRET = "kueue-webhook-service", "kueue-webhook-server-cert"
_LEFT_OUT = frozenset({"Deployment", "Service", "ConfigMap", "ServiceAccount", "APIService"})
"""Kinds of the chart that a process of this machine does not need."""
_GROUPS = frozenset({"kueue.x-k8s.io", "batch"})
"""API groups whose objects pass through Kueue's webhooks. Here it manages Jobs only."""


def component(plane: ControlPlane, port: int = 0, health_port: int = 0) -> Component:
    """Kueue's manager for this control plane. Its definitions, rights and webhooks are applied before.

    Args:
        port: of the webhooks, on loopback; 0: a free one. The same number gives the same process.
        health_port: of the probe.
    """
    port, health_port = port or _free_port(), health_port or _free_port()
    _apply(plane, port)
    certificates = plane.folder / "kueue" / "certificates"
    certificates.mkdir(parents=True, exist_ok=True)
    config = plane.folder / "kueue" / "config.yaml"
    config.write_text(yaml.safe_dump(_configuration(port, health_port, certificates)))
    argv = (
        str(binaries.kueue()),
        f"--config={config}",
        f"--kubeconfig={plane.user(USER)}",
        "--feature-gates=VisibilityOnDemand=false",
        "--zap-log-level=2",
    )

    def ready() -> bool:
        return _mounted(plane, certificates) and answers(port) and answers(health_port)

    return Component(NAME, argv, ready, (config,))


def definitions() -> list[dict[str, Any]]:
    """Its CustomResourceDefinitions without their webhook: enough to store queues that nobody works on."""
    found = [body for body in _objects(port=443) if body["kind"] == "CustomResourceDefinition"]
    for body in found:
        body["spec"].pop("conversion", None)
    return found


def _configuration(port: int, health_port: int, certificates: Path) -> dict[str, Any]:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": NAMESPACE,
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health_port}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(certificates)},
        "internalCertManagement": {"enable": True, "webhookServiceName": SERVICE, "webhookSecretName": SECRET},
        "leaderElection": {"leaderElect": False},
        "clientConnection": {"qps": 50, "burst": 100},
        "integrations": {"frameworks": ["batch/job"]},
        "fairSharing": {"preemptionStrategies": ["LessThanOrEqualToFinalShare", "LessThanInitialShare"]},
    }


def _mounted(plane: ControlPlane, folder: Path) -> bool:
    """Whether the certificate that Kueue made is in the folder, where a kubelet would mount its Secret."""
    found = json.loads(_kubectl(plane, "get", "secret", SECRET, "--namespace", NAMESPACE, "--output=json"))
    files = found.get("data") or {}
    for name in sorted(files, reverse=True):  # Kueue reads tls.key as soon as there is tls.crt
        write_private(folder / name, base64.b64decode(files[name]))
    return "tls.crt" in files


def _apply(plane: ControlPlane, port: int) -> None:
    """The objects of the chart, with webhooks on this port of this machine."""
    # To a Service of this type the API server connects by the name alone, and still asks for the Service's certificate.
    spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
    here = {"namespace": NAMESPACE, "name": SERVICE}
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "Service", "metadata": here, "spec": spec},
        *_objects(port),
    ]
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    # Server-side: the definitions are too large for the annotation of client-side apply.
    # Not validated by kubectl, which would read the schemas of all kinds, and gives up after 32 s on a busy machine.
    # The API server refuses fields of a server-side apply that it does not know by itself.
    options = ("--server-side", "--force-conflicts", "--validate=false")
    _kubectl(plane, "apply", *options, "--filename=-", stdin=body)


def _kubectl(plane: ControlPlane, *argv: str, stdin: str | None = None) -> str:
    return run(binaries.kubernetes() / "kubectl", "--kubeconfig", plane.kubeconfig, *argv, stdin=stdin)


def _objects(port: int) -> Iterator[dict[str, Any]]:
    """What the chart has, for a manager that listens on this port."""
    for body in yaml.safe_load_all(_chart()):
        if not body or body["kind"] in _LEFT_OUT:
            continue
        hooks = []
        if body["kind"] == "CustomResourceDefinition" and "conversion" in body["spec"]:
            hooks = [body["spec"]["conversion"]["webhook"]]
        if body["kind"].endswith("WebhookConfiguration"):
            hooks = body["webhooks"] = [hook for hook in body["webhooks"] if _is_kept(hook)]
        for hook in hooks:
            hook["clientConfig"]["service"]["port"] = port
        if body["kind"].endswith("Binding"):
            body["subjects"] = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}]
        yield body


def _is_kept(hook: dict[str, Any]) -> bool:
    return all(_GROUPS.issuperset(rule["apiGroups"]) for rule in hook["rules"])


@cache
def _chart() -> str:
    """The manifests of the chart that the module contains."""
    folder = json.loads(run("go", "mod", "download", "-json", MODULE, cwd=binaries.KUEUE, hint=binaries.GO_HINT))["Dir"]
    return run(helm(), "template", NAME, Path(folder) / "charts" / "kueue", "--namespace", NAMESPACE)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
