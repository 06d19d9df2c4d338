"""What is in the API server before the first route: versions, their Services, and the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hone_dev.canary.answering import PORT, Version
from hone_dev.canary.gateway import CONTROLLER

Body = dict[str, Any]
MODEL, NAMESPACE, PLATFORM, GATEWAY = "bot", "team", "infra", "public"


def model_version(number: int) -> Body:
    """A version of the model, an adapter, as Hone records it."""
    folder = f"pvc://store/models/{MODEL}-{number}/adapter"
    lineage = {
        "baseModel": {"uri": "hf://owner/base@main", "location": "pvc://store/base-models/base"},
        "datasets": [],
        "job": {"name": "run", "uid": "u"},
        "method": "SFT",
        "hyperParameters": {"adapter": {"type": "LoRA", "rank": 16}},
        "seed": 0,
    }
    artifact = {"format": "Adapter", "uri": folder, "digest": "sha256:" + "0" * 64, "sizeBytes": 1}
    return {
        "apiVersion": "hone.dev/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {"name": f"{MODEL}-v{number}", "namespace": NAMESPACE},
        "spec": {"modelName": MODEL, "version": number, "artifacts": [artifact], "lineage": lineage},
    }


def service(version: Version) -> list[Body]:
    """The Service of a version, and where it answers."""
    port = {"name": "http", "port": PORT}
    where = {"name": version.name, "namespace": NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": where, "spec": {"ports": [port]}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**where, "labels": {"kubernetes.io/service-name": version.name}},
            "addressType": "IPv4",
            "ports": [port],
            "endpoints": [{"addresses": [version.address], "conditions": {"ready": True}}],
        },
    ]


def platform(port: int) -> list[Body]:
    """Namespaces, the gateway on this port, and the account that the gateway reads with."""
    api = "gateway.networking.k8s.io/v1"
    account = {"name": "gateway", "namespace": PLATFORM}
    listener = {"name": "http", "protocol": "HTTP", "port": port, "allowedRoutes": {"namespaces": {"from": "All"}}}
    return [
        *(_object("v1", "Namespace", {"name": name}) for name in (NAMESPACE, PLATFORM)),
        _object("v1", "ServiceAccount", account),
        {
            **_object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", {"name": "gateway"}),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
        {**_object(api, "GatewayClass", {"name": "traefik"}), "spec": {"controllerName": CONTROLLER}},
        {
            **_object(api, "Gateway", {"name": GATEWAY, "namespace": PLATFORM}),
            "spec": {"gatewayClassName": "traefik", "listeners": [listener]},
        },
    ]


def everything(versions: Sequence[Version], port: int) -> list[Body]:
    """All of it, in the order in which it can be created."""
    return [*platform(port), *(body for version in versions for body in service(version))]


def _object(api: str, kind: str, metadata: Body) -> Body:
    return {"apiVersion": api, "kind": kind, "metadata": metadata}
