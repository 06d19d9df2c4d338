"""AIBrix: one ModelAdapter for each adapter, and a Deployment of vLLM for their base.

Its controller asks vLLM to load `artifactURL`; an absolute path reaches vLLM as it is
(pkg/controller/modeladapter/lora_client.go of vllm-project/aibrix, August 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hone_cli.errors import CommandError
from hone_cli.serving import vllm
from hone_cli.serving.models import ServedModel, one_base, refuse_fused_experts
from hone_cli.serving.vllm import ADAPTERS, PORT, Server


def render(models: Sequence[ServedModel], server: Server) -> list[dict[str, Any]]:
    """The Deployment that AIBrix loads adapters into, its Service, and the adapters."""
    one_base(models)
    refuse_fused_experts(models, "AIBrix")
    if server.name in {m.name for m in models}:
        raise CommandError(
            f"AIBrix has a Service for the base and one for each adapter, and two would be {server.name}: give another "
            "--name"
        )
    if server.api_key_secret:
        raise CommandError("--api-key-secret is for --to vllm: AIBrix's gateway has the clients' credentials")
    labels = {"model.aibrix.ai/name": server.name, "model.aibrix.ai/port": str(PORT)}
    labels["adapter.model.aibrix.ai/enabled"] = "true"
    deployment = vllm.deployment(models, server, adapters="Mounted")
    deployment["metadata"]["labels"] |= labels
    template = deployment["spec"]["template"]
    template["metadata"]["labels"] |= labels
    [container] = template["spec"]["containers"]
    # AIBrix routes by the name of the Service, and loads adapters by vLLM's own calls.
    container["args"][container["args"].index("--served-model-name") + 1] = server.name
    container["env"].append({"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"})
    return [deployment, vllm.service(server), *(_adapter(m, server) for m in models)]


def _adapter(model: ServedModel, server: Server) -> dict[str, Any]:
    return {
        "apiVersion": "model.aibrix.ai/v1alpha1",
        "kind": "ModelAdapter",
        "metadata": {
            "name": model.name,
            "namespace": server.namespace,
            "labels": {"model.aibrix.ai/name": model.name, "model.aibrix.ai/port": str(PORT)},
            "annotations": {"hone.dev/model-versions": model.version},
        },
        "spec": {
            "baseModel": server.name,
            "podSelector": {"matchLabels": {"model.aibrix.ai/name": server.name}},
            "artifactURL": f"{ADAPTERS}/{model.name}",
        },
    }
