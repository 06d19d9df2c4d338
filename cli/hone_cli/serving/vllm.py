"""A Deployment of vLLM and its Service."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.base.pod_image import PodImage
from hone_api.verdicts.servable import FUSED_EXPERTS, TEMPLATE_KWARGS
from hone_cli.errors import CommandError
from hone_cli.reach.restricted import container_security, pod_security
from hone_cli.serving.models import ModelFolder, ServedModel, base_digest, one_base, shared_template_kwargs
from hone_cli.serving.verifying import pull_secrets, verifier

PORT = 8000
BASE, ADAPTERS = "/base", "/adapters"
BATCHED_ADAPTERS = 8
"""Most adapters in one batch: each reserves memory of the accelerator."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
}
"""Nothing is fetched, and nothing is reported to anybody."""
WRITABLE = {
    "HOME": "/tmp",
    "USER": "vllm",
    "VLLM_CACHE_ROOT": "/tmp/vllm",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",
    "TRITON_CACHE_DIR": "/tmp/triton",
}
"""The image is read-only, and its user has no name there."""


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TAKEN = frozenset({"tmp", "shm", "adapters", "aliases"})
"""Names of volumes that do not come from a claim."""


@dataclass(frozen=True)
class Server:
    """What a person chooses about a server."""

    name: str
    namespace: str
    image: str
    trainer: PodImage | None = None
    """Image of the containers that verify and exchange models; None: nothing that is printed has them."""
    gpus: int = 1
    replicas: int = 1
    api_key_secret: str | None = None
    """A Secret with the key API_KEY, which clients must send."""
    allow_from: tuple[str, ...] = ()
    """Namespaces whose pods may ask, in addition to its own."""


def render(models: Sequence[ServedModel], server: Server) -> list[dict[str, Any]]:
    """The Deployment, Service and NetworkPolicy of all models: adapters on one base, or one whole model.

    Raises:
        CommandError: they do not fit into one server.
    """
    return [deployment(models, server), service(server), network_policy(server)]


def deployment(models: Sequence[ServedModel], server: Server, *, follows: bool = False) -> dict[str, Any]:
    """The Deployment of vLLM.

    Args:
        follows: whether adapters are put there while vLLM runs, instead of loaded at its start.
    """
    whole = weights(models)
    tuned = [m for m in models if m.form == "Adapter"]
    arguments = ["--model", BASE, "--served-model-name", models[0].base_name if tuned else models[0].name]
    arguments += ["--host", "0.0.0.0", "--port", str(PORT)]
    if server.gpus > 1:
        arguments += ["--tensor-parallel-size", str(server.gpus)]
    if models[0].is_reward:
        arguments += ["--runner", "pooling"]
    if tuned:
        # Of an adapter that is exchanged, requests in progress still use the one before.
        cached = 2 * len(tuned) if follows else len(tuned)
        arguments += ["--enable-lora", "--max-lora-rank", str(max(m.rank for m in tuned))]
        arguments += ["--max-loras", str(min(len(tuned), BATCHED_ADAPTERS)), "--max-cpu-loras", str(cached)]
    if any(m.fused_experts or (m.on_experts and follows) for m in tuned):  # a later version may have them
        arguments.append(FUSED_EXPERTS)
    if kwargs := shared_template_kwargs(tuned):
        arguments += [TEMPLATE_KWARGS, kwargs]
    if tuned and not follows:
        arguments += ["--lora-modules", *map(_loaded, tuned)]
    recorded = base_digest(tuned) if tuned else models[0].digest
    mounts = [_Mounted(whole, BASE, recorded)]
    if not follows:
        mounts += [_Mounted(m.folder, f"{ADAPTERS}/{m.name}", m.digest) for m in tuned]
    pod = _pod(server, arguments, mounts)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": server.name,
            "namespace": server.namespace,
            "labels": labels(server),
            "annotations": {"hone.dev/model-versions": ",".join(m.version for m in models)},
        },
        "spec": {
            "replicas": server.replicas,
            "selector": {"matchLabels": labels(server)},
            "template": {"metadata": {"labels": labels(server)}, "spec": pod},
        },
    }


@dataclass(frozen=True)
class _Mounted:
    """A folder of a volume in the pod."""

    folder: ModelFolder
    path: str
    digest: str | None
    """Of its manifest.json; None: no record has it."""

    def mount(self) -> dict[str, Any]:
        """Read-only, and nothing else of the volume."""
        name = volume_name(self.folder.claim)
        return {"name": name, "mountPath": self.path, "subPath": self.folder.path, "readOnly": True}


def _pod(server: Server, arguments: list[str], mounts: Sequence[_Mounted]) -> dict[str, Any]:
    trainer = trainer_of(server)
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "imagePullSecrets": pull_secrets(trainer),
        "securityContext": pod_security(),
        "initContainers": verifier(trainer, [(each.mount(), each.digest) for each in mounts]),
        "containers": [_container(server, arguments, [each.mount() for each in mounts])],
        "volumes": [
            *(volume(claim) for claim in dict.fromkeys(each.folder.claim for each in mounts)),
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }


def _loaded(adapter: ServedModel) -> str:
    """An adapter that vLLM loads at its start, as --lora-modules has it."""
    path = f"{ADAPTERS}/{adapter.name}"
    if not adapter.fused_experts:
        return f"{adapter.name}={path}"
    return json.dumps({"name": adapter.name, "path": path, "is_3d_lora_weight": True})


def trainer_of(server: Server) -> PodImage:
    """The image of the containers next to vLLM."""
    if server.trainer is None:
        raise AssertionError("a Deployment of vLLM has containers of the trainer's image")
    return server.trainer


def weights(models: Sequence[ServedModel]) -> ModelFolder:
    """The weights that the server loads first: the base of the adapters, or the whole model.

    Raises:
        CommandError: there are several.
    """
    if any(m.form == "GGUF" for m in models):
        raise CommandError("vLLM does not serve the form GGUF here: choose another --form, or --to ollama")
    if models[0].form == "Adapter":
        return one_base(models)
    if len(models) > 1:
        listed = ", ".join(f"{m.version}: {m.form}" for m in models)
        raise CommandError(f"one server loads one whole model or several adapters ({listed}): render a server for each")
    return models[0].folder


def labels(server: Server) -> dict[str, str]:
    """Labels of the Deployment and its pods."""
    return {"app.kubernetes.io/name": "vllm", "app.kubernetes.io/instance": server.name}


def _container(server: Server, arguments: list[str], mounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    env: list[dict[str, Any]] = [{"name": k, "value": v} for k, v in {**OFFLINE, **WRITABLE}.items()]
    env += api_key(server)
    health = {"httpGet": {"path": "/health", "port": "http"}}
    container = {
        "name": "vllm",
        "image": server.image,
        "command": ["vllm", "serve"],
        "args": arguments,
        "env": env,
        "ports": [{"name": "http", "containerPort": PORT}],
        # A large model takes long to load; a server that hangs later is started again.
        "startupProbe": {**health, "periodSeconds": 10, "failureThreshold": 360},
        "readinessProbe": {**health, "periodSeconds": 5},
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
        "securityContext": container_security(),
        "volumeMounts": [
            *mounts,
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    if server.gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(server.gpus)}}
    return container


def api_key(server: Server) -> list[dict[str, Any]]:
    """The environment of a container that needs the clients' key."""
    if not server.api_key_secret:
        return []
    key = {"secretKeyRef": {"name": server.api_key_secret, "key": "API_KEY"}}
    return [{"name": "VLLM_API_KEY", "valueFrom": key}]


def volume(claim: str) -> dict[str, Any]:
    """A claim, read-only."""
    return {"name": volume_name(claim), "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}


def volume_name(claim: str) -> str:
    """The claim's own name where a volume may have it: a claim may have dots, or be longer than a label."""
    if _LABEL.fullmatch(claim) and claim not in _TAKEN:
        return claim
    return f"store-{hashlib.sha256(claim.encode()).hexdigest()[:12]}"


def service(server: Server) -> dict[str, Any]:
    """The Service of its pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": server.name, "namespace": server.namespace, "labels": labels(server)},
        "spec": {"selector": labels(server), "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    }


def network_policy(server: Server, *open_ports: str, pods: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Pods of its own namespace and of `allow_from` reach it, and nobody else; anybody reaches `open_ports`.

    Args:
        pods: labels of somebody else's pods, closed on every port; None: our own.
    """
    peers: list[dict[str, Any]] = [{"podSelector": {}}]
    if server.allow_from:
        named = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": sorted(set(server.allow_from))}
        peers.append({"namespaceSelector": {"matchExpressions": [named]}})
    ingress: list[dict[str, Any]] = [{"from": peers}]
    if pods is None:
        ingress[0]["ports"] = [{"port": "http", "protocol": "TCP"}]
    ingress += [{"ports": [{"port": port, "protocol": "TCP"}]} for port in open_ports]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": server.name, "namespace": server.namespace, "labels": labels(server)},
        "spec": {
            "podSelector": {"matchLabels": pods or labels(server)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }
