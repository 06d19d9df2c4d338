"""What is trainable: all weights, or a low-rank adapter (Hu et al. 2021) on a frozen base."""

from __future__ import annotations

import math
from typing import Any

from hone_api.training import DEFAULT_RANK, Adapter
from hone_trainer.model import Head

SCALE = 2
"""Factor on the update when the plan names no alpha."""


def is_adapter(adapter: Adapter) -> bool:
    """Whether only an adapter is trained."""
    return adapter.type != "None"


def is_quantized(adapter: Adapter) -> bool:
    """Whether the frozen base is held in 4 bits."""
    return adapter.type == "QLoRA"


def resolved(adapter: Adapter) -> dict[str, int]:
    """Rank and alpha, with defaults; empty for full fine-tuning."""
    if not is_adapter(adapter):
        return {}
    rank = adapter.rank or DEFAULT_RANK
    alpha = SCALE * (math.sqrt(rank) if adapter.rank_stabilized else rank)
    return {"adapterRank": rank, "adapterAlpha": adapter.alpha or round(alpha)}


def to_peft(adapter: Adapter, head: Head = "LanguageModel") -> Any:
    """peft's LoraConfig; a reward head is trained whole beside the adapter."""
    from peft import LoraConfig

    numbers = resolved(adapter)
    return LoraConfig(
        task_type="CAUSAL_LM" if head == "LanguageModel" else "SEQ_CLS",
        modules_to_save=["score"] if head == "Reward" else None,
        r=numbers["adapterRank"],
        lora_alpha=numbers["adapterAlpha"],
        lora_dropout=float(adapter.dropout or 0),
        target_modules=adapter.targets or "all-linear",
        use_dora=adapter.type == "DoRA",
        use_rslora=adapter.rank_stabilized,
        bias="none",
    )


def in_float32(model: Any) -> None:
    """Hold what is trained in float32: bfloat16 would lose updates smaller than 1/256 of a weight.

    TRL casts the adapters of a quantised base to bfloat16, and a reward head is loaded in the base's own type. The
    optimizer's state takes its type from the weights, so this comes before the optimizer is made.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()


def unknown_targets(targets: list[str], linear_modules: set[str]) -> list[str]:
    """Targets that match no linear module, as peft matches: the whole name or its end after a dot."""
    return [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in linear_modules)]


def linear_modules(config: Any) -> set[str]:
    """Names of the linear modules of the model but its head, without loading weights."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head = model.get_output_embeddings()
    return {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
