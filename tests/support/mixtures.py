"""Tiny random mixtures of experts, one of each family that the tests hold Hone to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
}
_ROUTED = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
_GROUPED = {**_ROUTED, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {**_ROUTED, "num_experts": 4, "shared_expert_intermediate_size": 16, "mlp_only_layers": [0]},
    ),
    "qwen3_moe": ("Qwen3MoeConfig", {**_ROUTED, "num_experts": 4, "head_dim": 8, "mlp_only_layers": [0]}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "olmoe": ("OlmoeConfig", {"num_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v3": ("DeepseekV3Config", {**_GROUPED, **_LATENT}),
    "glm4_moe": ("Glm4MoeConfig", {**_GROUPED, "head_dim": 8}),
    "gpt_oss": ("GptOssConfig", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}),
}
"""Config class of transformers and its sizes, by model type. Layer 0 is dense where the family has dense layers."""


def config(family: str) -> Any:
    """Config of a model of two layers with four experts."""
    import transformers

    kind, sizes = FAMILIES[family]
    return getattr(transformers, kind)(**SIZES, **sizes)


def build(family: str) -> Any:
    """The model with random weights; the same for each call."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config(family))


SERVED_FUSED = frozenset({"gpt_oss"})
"""Families whose routed experts vLLM takes in the form that PEFT writes, one pair of tensors for all experts of a layer
(`is_3d_moe_weight` of its model class); of the others it wants a pair for each expert."""
PAGE = Path(__file__).parents[2] / "docs/reference/mixtures.md"
START, END = "<!-- families: generated -->\n", "<!-- end of families -->\n"


def table() -> str:
    """The families with what is adapted, exported and servable, as Markdown."""
    from hone_trainer import adapters, targets

    out = [
        "| Model type | Layers with an adapter | Exported | An adapter with experts in vLLM |",
        "| --- | --- | --- | --- |",
    ]
    for family in FAMILIES:
        chosen = targets.choose(adapters.without_weights(config(family)), None)
        assert isinstance(chosen.modules, list)
        names = [*chosen.modules, *(name.removesuffix(".weight") for name in chosen.parameters)]
        served = "as exported" if family in SERVED_FUSED else "merged model only"
        out.append(f"| `{family}` | {', '.join(f'`{name}`' for name in names)} | adapter, merged | {served} |")
    return "\n".join(out) + "\n"


def write_page() -> None:
    """Put the present table on its page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(f"{before}{START}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    write_page()
