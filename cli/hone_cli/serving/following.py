"""A vLLM that follows aliases: a container next to it loads what an alias means now, and unloads what is not
approved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.contract.served import CONFIG_MAP, key_of
from hone_cli.errors import CommandError
from hone_cli.serving.models import ModelFolder, ServedModel
from hone_cli.serving.verifying import container
from hone_cli.serving.vllm import (
    ADAPTERS,
    Server,
    api_key,
    deployment,
    network_policy,
    service,
    trainer_of,
    volume,
    volume_name,
    weights,
)

HEALTH_PORT = 8001
GUARD_FOLDER = f"{ADAPTERS}/.guard"
GUARD = "hone_adapter_guard.AdapterGuard"
MODELS = "models"
"""Folder of the store below which all adapters are."""


@dataclass(frozen=True)
class Following:
    """What a server follows."""

    aliases: Sequence[tuple[str, str]]
    """Model and alias of each served model, in the same order."""
    rank: int | None = None
    """Most of a later version, for vLLM's --max-lora-rank; None: that of the versions of today."""

    @property
    def names(self) -> list[str]:
        """What clients ask for: the model, or model@alias where several aliases of one model are served."""
        count = Counter(model for model, _ in self.aliases)
        return [model if count[model] == 1 else f"{model}@{alias}" for model, alias in self.aliases]


def render(models: Sequence[ServedModel], server: Server, following: Following) -> list[dict[str, Any]]:
    """The Deployment, Service and NetworkPolicy of all aliases.

    Raises:
        CommandError: they do not share a base, an alias means no adapter, or one is named twice.
    """
    if twice := [f"{model}@{alias}" for (model, alias), count in Counter(following.aliases).items() if count > 1]:
        raise CommandError(f"{twice[0]} is named twice")
    base = weights(models)
    if other := next((m for m in models if m.form != "Adapter"), None):
        words = "only an adapter can be exchanged while vLLM runs"
        raise CommandError(f"ModelVersion {other.version} is served as {other.form}: {words}; leave --follow out")
    claims = {m.folder.claim for m in models}
    if len(claims) > 1 or any(m.folder.path.split("/")[0] != MODELS for m in models):
        raise CommandError(f"--follow serves adapters of one store alone, not of {', '.join(sorted(claims))}")
    claim = claims.pop()
    body = deployment(models, server, follows=True)
    meta, pod = body["metadata"], body["spec"]["template"]["spec"]
    meta["annotations"] = {"hone.dev/follows": ",".join(f"{model}@{alias}" for model, alias in following.aliases)}
    body["spec"]["template"]["metadata"]["labels"] |= {"hone.dev/server": "follow"}  # the chart's PodMonitor
    [vllm] = pod["containers"]
    _ask_for_rank(vllm["args"], following.rank)
    vllm["args"] += ["--middleware", GUARD]
    vllm["env"] += [
        {"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"},
        {"name": "PYTHONPATH", "value": GUARD_FOLDER},
    ]
    vllm["volumeMounts"].append({"name": "adapters", "mountPath": ADAPTERS, "readOnly": True})
    pod["initContainers"].append(_follower(server, following, base, claim))
    if claim != base.claim:
        pod["volumes"].append(volume(claim))
    pod["volumes"] += [{"name": "adapters", "emptyDir": {}}, _aliases(following)]
    return [body, service(server), network_policy(server, "follow")]  # for metrics and probes


def _ask_for_rank(arguments: list[str], rank: int | None) -> None:
    at = arguments.index("--max-lora-rank") + 1
    if rank is not None and rank < int(arguments[at]):
        raise CommandError(f"--max-lora-rank {rank} is below that of the versions of today, {arguments[at]}")
    arguments[at] = str(rank or arguments[at])


def _follower(server: Server, following: Following, base: ModelFolder, claim: str) -> dict[str, Any]:
    """The container that starts before vLLM and ends after it."""
    command = ["follow", "--base", str(base), "--claim", claim]
    for name, (model, alias) in zip(following.names, following.aliases, strict=True):
        command += ["--alias", f"{name}={model}@{alias}"]
    mounts: list[dict[str, Any]] = [
        {"name": volume_name(claim), "mountPath": f"/{MODELS}", "subPath": MODELS, "readOnly": True},
        {"name": "aliases", "mountPath": "/aliases", "readOnly": True},
        {"name": "adapters", "mountPath": ADAPTERS},
    ]
    follower = container(
        "follow",
        trainer_of(server),
        command,
        mounts,
        restartPolicy="Always",
        ports=[{"name": "follow", "containerPort": HEALTH_PORT}],
        # vLLM imports what this container writes first.
        startupProbe={**_health("/healthz"), "periodSeconds": 1, "failureThreshold": 300},
        readinessProbe={**_health("/readyz"), "periodSeconds": 5},
        livenessProbe={**_health("/healthz"), "periodSeconds": 30},
    )
    follower["env"] += api_key(server)
    return follower


def _health(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "follow"}}


def _aliases(following: Following) -> Mapping[str, Any]:
    """The followed Models alone; a key that is missing means that nothing of that Model may be served."""
    keys = dict.fromkeys(key_of(model) for model, _ in following.aliases)
    items = [{"key": key, "path": key} for key in keys]
    return {"name": "aliases", "configMap": {"name": CONFIG_MAP, "optional": True, "items": items}}
