"""A tiny random model of every family that transformers lists as a causal language model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LAYERS = 4
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "intermediate_size", "ffn_dim"), 32),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "dim_ff", "ffn_hidden_size", "dim_model"), 32),
    **dict.fromkeys(
        ("num_hidden_layers", "num_layers", "decoder_layers", "encoder_layers", "num_decoder_layers"), LAYERS
    ),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "index_n_heads"), 2),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "head_dim", "q_lora_rank", "kv_lora_rank", "index_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 16),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_d_state", "ssm_state_size"), 16),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 16),
    **dict.fromkeys(("n_groups", "mamba_n_groups", "mamba_ngroups"), 1),
    **dict.fromkeys(("router_jitter_noise", "input_jitter_noise"), 0.0),
    "mamba_d_ssm": 64,
    "vocab_size": 512,
    "vocab_size_per_layer_input": 512,
    "max_position_embeddings": 256,
    "sliding_window": 64,
    "n_group": 1,
    "topk_group": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
    "output_router_logits": False,
}
"""Sizes by the names that configs share."""
_VISION = {
    "model_type": "siglip_vision_model",
    "image_size": 28,
    "patch_size": 14,
    **{name: SIZES[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")},
}
MORE: dict[str, dict[str, Any]] = {
    "gemma3": {"vision_config": _VISION, "mm_tokens_per_image": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 4},
    "xlnet": {"d_head": 16},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "mamba"]},
    "zaya": {"num_experts_per_tok": 1},
    "dots1": {"n_shared_experts": 1},
    "reformer": {"axial_pos_embds": False, "num_buckets": 4},
}
"""What a family's own rules ask for besides."""
MOST = 40_000_000
"""Weights of a small model."""
SCALE = 4
"""Of random matrices: with their usual size, tokens hardly read each other."""


def families() -> list[str]:
    """Model types in transformers' mapping of causal language models."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def buildable() -> Iterator[str]:
    """Those whose own rules allow a small model."""
    for family in families():
        try:
            build(config(family))
        except Exception:
            continue
        yield family


def config(family: str, **more: Any) -> Any:
    """A small config of a family.

    Raises:
        Exception: the family's rules do not allow these sizes.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return _small(CONFIG_MAPPING[family], {**MORE.get(family, {}), **more})


def _small(kind: Any, more: dict[str, Any]) -> Any:
    fields = inspect.signature(kind).parameters
    names = set(fields) | set(kind.attribute_map)
    options = {name: value for name, value in SIZES.items() if name in names}
    options |= {name: 0.0 for name in fields if "drop" in name and isinstance(fields[name].default, float)}
    options |= {
        name: _small(part, {}).to_dict() for name, part in kind.sub_configs.items() if hasattr(part, "sub_configs")
    }
    return kind(**options | more)


def build(sizes: Any) -> Any:
    """The model of a config with random weights, in which tokens depend on each other.

    Raises:
        Exception: transformers cannot build it, or it is not small.
    """
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(sizes).parameters())
    if size > MOST:
        raise ValueError(f"{size:,} weights are not a small model")
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(sizes, dtype=torch.float32).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.data.mul_(SCALE)
    return model


def save(model: Any, folder: Path) -> Path:
    """The model as a base, with the tokenizer of the tests."""
    from support.models import tiny

    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder
