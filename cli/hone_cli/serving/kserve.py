"""KServe: an LLMInferenceService (v1alpha2), or an InferenceService (v1beta1).

Both mount the claim themselves, at addresses pvc://claim/folder. Fields as in kserve/kserve of August 2026:
pkg/apis/serving/v1alpha2/llm_inference_service_types.go, pkg/apis/serving/v1beta1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hone_cli.errors import CommandError
from hone_cli.serving import vllm
from hone_cli.serving.models import ServedModel, refuse_fused_experts, shared_template_kwargs
from hone_cli.serving.vllm import Server


def llm_inference_service(models: Sequence[ServedModel], server: Server) -> list[dict[str, Any]]:
    """Adapters on one base, or one whole model."""
    whole, adapters = vllm.weights(models), [m for m in models if m.form == "Adapter"]
    refuse_fused_experts(adapters, "KServe")
    if shared_template_kwargs(adapters):
        raise CommandError(
            f"ModelVersion {adapters[0].version} was trained with training.thinking, which KServe does not set for "
            "vLLM's prompts: use --to vllm, or --form Merged where the version has it"
        )
    model: dict[str, Any] = {"uri": str(whole), "name": models[0].base_name if adapters else models[0].name}
    if adapters:
        model["lora"] = {
            "maxRank": max(m.rank for m in adapters),
            "adapters": [{"name": m.name, "uri": str(m.folder)} for m in adapters],
        }
    spec: dict[str, Any] = {
        "model": model,
        "replicas": server.replicas,
        "router": {"gateway": {}, "route": {}, "scheduler": {}},
    }
    if server.gpus:
        limits = {"nvidia.com/gpu": str(server.gpus)}
        spec["template"] = {"containers": [{"name": "main", "resources": {"limits": limits}}]}
    pods = {
        "app.kubernetes.io/name": server.name,
        "app.kubernetes.io/part-of": "llminferenceservice",
        "kserve.io/component": "workload",
    }
    service = _object("serving.kserve.io/v1alpha2", "LLMInferenceService", server, models, spec)
    return [service, *_closed(server, pods)]


def inference_service(models: Sequence[ServedModel], server: Server) -> list[dict[str, Any]]:
    """One whole model; adapters are served by an LLMInferenceService."""
    if any(m.form == "Adapter" for m in models):
        raise CommandError(
            "an InferenceService serves a whole model: use --to kserve-llm for adapters, or --form Merged where the "
            "version has it"
        )
    model: dict[str, Any] = {
        "modelFormat": {"name": "huggingface"},
        "storageUri": str(vllm.weights(models)),
        "args": [f"--model_name={models[0].name}"],
    }
    if server.gpus:
        model["resources"] = {"limits": {"nvidia.com/gpu": str(server.gpus)}}
    spec = {"predictor": {"minReplicas": server.replicas, "model": model}}
    service = _object("serving.kserve.io/v1beta1", "InferenceService", server, models, spec)
    return [service, *_closed(server, {"serving.kserve.io/inferenceservice": server.name})]


def _closed(server: Server, pods: Mapping[str, str]) -> list[dict[str, Any]]:
    """A NetworkPolicy of KServe's pods where the namespaces that reach them are named: its gateway is in one."""
    return [vllm.network_policy(server, pods=pods)] if server.allow_from else []


def _object(api: str, kind: str, server: Server, models: Sequence[ServedModel], spec: dict[str, Any]) -> dict[str, Any]:
    if server.api_key_secret:
        raise CommandError("--api-key-secret is for --to vllm: KServe's gateway has the clients' credentials")
    meta = {
        "name": server.name,
        "namespace": server.namespace,
        "annotations": {"hone.dev/model-versions": ",".join(m.version for m in models)},
    }
    return {"apiVersion": api, "kind": kind, "metadata": meta, "spec": spec}
