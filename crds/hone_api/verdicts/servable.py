"""Which servers load a recorded model, and why not. Pure.

What vLLM takes was read in its source (vllm/config/lora.py, vllm/lora/peft_helper.py of 0.31) and run: see the page
"Model families".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.blocks.training import DEFAULT_RANK, AdapterType, thinking_switches
from hone_api.estimate.advice import SERVED_RANKS
from hone_api.estimate.memory import reaches_experts
from hone_api.kinds.modelversion import BaseModelLineage, ModelVersionSpec

TRANSFORMERS = "transformers"
"""A library that answers, not a server; listed for what it loads."""
VLLM_RANK = 16
"""vLLM's --max-lora-rank where it is not set."""
FUSED_EXPERTS = "--enable-mixed-moe-lora-format"
"""Makes vLLM take experts that an adapter holds together; each such adapter is loaded with `is_3d_lora_weight`."""

TEMPLATE_KWARGS = "--default-chat-template-kwargs"
"""vLLM's variables of the chat template where a request has none."""
GPT_OSS = "gpt_oss"
"""model_type of the family whose experts vLLM takes as an adapter holds them."""
_DOWN = {"down_proj", "w2"}
_ENDS = frozenset({"embed_in", "embed_out", "embed_tokens", "lm_head", "wte"})
"""Embeddings and heads: PEFT and vLLM have different rules for tying them."""


@dataclass(frozen=True)
class ServerVerdict:
    """Whether one server loads one of the version's artifacts."""

    server: str
    loads: bool
    why: str
    """How, or why not and what to do; follows the server's name."""

    def __str__(self) -> str:
        return f"{self.server}: {'yes' if self.loads else 'no'}, {self.why}"


def verdicts(spec: ModelVersionSpec) -> Sequence[ServerVerdict]:
    """One for vLLM, llama.cpp and PEFT each, in this order."""
    return _vllm(spec), _llama_cpp(spec), _peft(spec)


def least_lora_rank(spec: ModelVersionSpec) -> int | None:
    """The least --max-lora-rank of vLLM that takes the version's adapter; None: vLLM does not load it."""
    if not _first(spec, "Adapter") or _refused(spec):
        return None
    rank = _rank(spec, _adapter(spec))
    return next(served for served in SERVED_RANKS if served >= rank)


def _vllm(spec: ModelVersionSpec) -> ServerVerdict:
    if whole := _first(spec, "Merged", "Full"):
        how = "with --runner pooling" if _is_reward(spec) else "with its path"
        return ServerVerdict("vLLM", True, f"the {whole.lower()} model, {how}")
    if not _first(spec, "Adapter"):
        return ServerVerdict("vLLM", False, "there is neither an adapter nor a merged model")
    if refused := _refused(spec):
        return ServerVerdict("vLLM", False, f"{refused}; train with output.merge to serve the merged model")
    room = least_lora_rank(spec) or VLLM_RANK
    more = f" and --max-lora-rank {room}" if room > VLLM_RANK else ""
    fused = f" and {FUSED_EXPERTS}, loaded with is_3d_lora_weight" if has_fused_experts(spec) else ""
    switches = template_kwargs(spec)
    thinking = f" and {TEMPLATE_KWARGS} '{switches}'" if switches else ""
    return ServerVerdict("vLLM", True, f"the adapter on its base, with --enable-lora{more}{fused}{thinking}")


def template_kwargs(spec: ModelVersionSpec) -> str | None:
    """What `TEMPLATE_KWARGS` must be for a server of the version's adapter, which has the base's chat template.

    Whole models have the default in their own template.
    """
    training = spec.lineage.values.get("training")
    thinking = training.get("thinking") if isinstance(training, Mapping) else None
    switches = thinking_switches(str(thinking)) if _first(spec, "Adapter") else {}
    return json.dumps(switches) if switches else None


def has_fused_experts(spec: ModelVersionSpec) -> bool:
    """Whether the version's adapter covers experts, which PEFT stores together and vLLM expects one by one."""
    return _covers_experts(spec) and expects_single_experts(spec.lineage.base_model)


def expects_single_experts(base: BaseModelLineage) -> bool:
    """Whether the base is a mixture whose experts vLLM expects one by one, as of all families except gpt_oss.

    With the setting for the others, vLLM 0.31 answered with other tokens than PEFT for gpt_oss; without it, vLLM
    refuses an adapter of another family, which nobody overlooks. A record made before Hone recorded model types has
    none: gpt_oss is then recognised by its name, or by experts as wide as the model.
    """
    shape = base.shape
    if not shape or not shape.experts:
        return False
    if shape.model_type:
        return shape.model_type != GPT_OSS
    return "gpt-oss" not in base.uri.lower().replace("_", "-") and shape.expert_width != shape.hidden


def _covers_experts(spec: ModelVersionSpec) -> bool:
    shape = spec.lineage.base_model.shape
    if not shape or not shape.experts or not _first(spec, "Adapter"):
        return False
    targets = _targets(spec)
    return not targets or any(map(reaches_experts, targets))


def _has_half_of_experts(spec: ModelVersionSpec) -> bool:
    """Whether the adapter covers one of the two parameters of the experts, which vLLM expects in pairs."""
    names = {target.rpartition(".")[2] for target in _targets(spec) if reaches_experts(target)}
    return bool(names) and "experts" not in names and not (names & _DOWN and names - _DOWN)


def _targets(spec: ModelVersionSpec) -> list[str]:
    targets = _adapter(spec).get("targets")
    return [str(target) for target in targets] if isinstance(targets, list) else []


def _refused(spec: ModelVersionSpec) -> str | None:
    """What vLLM does not take of the version's adapter."""
    adapter = _adapter(spec)
    rank = _rank(spec, adapter)
    if _is_reward(spec):
        return "an adapter with its own reward head"
    if adapter.get("type") == AdapterType.DORA:
        return "a DoRA adapter"
    if ends := sorted(_ENDS.intersection(target.rpartition(".")[2] for target in _targets(spec))):
        return f"an adapter on {' and '.join(ends)}, which was not compared with PEFT"
    if _covers_experts(spec) and _has_half_of_experts(spec):
        return "an adapter on only one of gate_up_proj and down_proj of the experts"
    if _covers_experts(spec) and spec.lineage.base_model.shape and spec.lineage.base_model.shape.latent:
        return "an adapter on experts of a model with latent attention"
    return f"an adapter of rank {rank}, above {SERVED_RANKS[-1]}" if rank > SERVED_RANKS[-1] else None


def _llama_cpp(spec: ModelVersionSpec) -> ServerVerdict:
    if _first(spec, "GGUF"):
        return ServerVerdict("llama.cpp", True, "the GGUF file")
    return ServerVerdict("llama.cpp", False, "there is no GGUF file; train with output.formats [Safetensors, GGUF]")


def _peft(spec: ModelVersionSpec) -> ServerVerdict:
    if whole := _first(spec, "Merged", "Full"):
        return ServerVerdict(TRANSFORMERS, True, f"the {whole.lower()} model")
    if _first(spec, "Adapter"):
        return ServerVerdict(TRANSFORMERS, True, "the adapter on its base, with PEFT")
    return ServerVerdict(TRANSFORMERS, False, "there is only a GGUF file")


def _first(spec: ModelVersionSpec, *forms: str) -> str | None:
    return next((a.format for a in spec.artifacts if a.format in forms), None)


def _is_reward(spec: ModelVersionSpec) -> bool:
    return spec.lineage.method == "Reward"


def _adapter(spec: ModelVersionSpec) -> Mapping[str, Any]:
    adapter = spec.lineage.values.get("adapter")
    return adapter if isinstance(adapter, dict) else {}


def _rank(spec: ModelVersionSpec, adapter: Mapping[str, Any]) -> int:
    """The rank as trained: the trainer's choice, or the plan's; a record is read as it is, whoever wrote it."""
    resolved = spec.lineage.values.get("resolved")
    chosen = resolved.get("adapterRank") if isinstance(resolved, dict) else None
    try:
        return int(chosen or adapter.get("rank") or DEFAULT_RANK)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_RANK
