"""The trainable weights: all of them, or a low-rank adapter (Hu et al. 2021) on a frozen base."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hone_api.blocks.training import DEFAULT_RANK, Adapter
from hone_api.combinations import expert_problems
from hone_trainer.models import targets
from hone_trainer.models.base_model import Head
from hone_trainer.models.network import Generating, Network

CONFIG_NAME = "adapter_config.json"
LAYERS = ("target_modules", "target_parameters", "rank_pattern", "alpha_pattern")
"""Fields of a LoraConfig that define which layers are adapted, and how strongly."""
SCALE = 2
"""Scale of the update if the plan has no alpha."""


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


def to_peft(adapter: Adapter, network: Generating, head: Head = "LanguageModel", checkpoint: Path | None = None) -> Any:
    """peft's LoraConfig for a loaded model; a reward head is trained in full, in addition to the adapter.

    Args:
        checkpoint: a checkpoint of this run to resume from. Its adapter defines the layers, because another version of
            Hone may have chosen others.
    """
    from peft import LoraConfig

    numbers, chosen = resolved(adapter), targets.choose(network, adapter.targets)
    config = LoraConfig(
        task_type="CAUSAL_LM" if head == "LanguageModel" else "SEQ_CLS",
        modules_to_save=["score"] if head == "Reward" else None,
        r=numbers["adapterRank"],
        lora_alpha=numbers["adapterAlpha"],
        lora_dropout=float(adapter.dropout or 0),
        target_modules=chosen.modules,
        target_parameters=chosen.parameters or None,
        use_dora=adapter.type == "DoRA",
        use_rslora=adapter.rank_stabilized,
        bias="none",
    )
    if checkpoint and (checkpoint / CONFIG_NAME).is_file():
        before = LoraConfig.from_pretrained(str(checkpoint))
        for name in LAYERS:
            setattr(config, name, getattr(before, name))
    return config


def in_float32(model: Network) -> None:
    """Cast the trained weights to float32: bfloat16 would lose updates smaller than 1/256 of a weight.

    TRL casts the adapters of a quantised base to bfloat16, and a reward head is loaded in the base's own type. Call
    this
    before the optimizer is created, because its state takes its type from the weights.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()


def problems(adapter: Adapter, network: Generating) -> list[str]:
    """The settings of an adapter that the model does not support, each with the way out.

    Args:
        network: the model, which may be on the meta device.
    """
    if unknown := targets.unknown(network, adapter.targets or []):
        names = ", ".join(targets.adaptable_names(network))
        return [
            f"adapter.targets {', '.join(unknown)} match no layer of the model that can be adapted (it has {names})"
        ]
    if halves := targets.half_fused(network, adapter.targets or []):
        return [
            f"adapter.targets {', '.join(halves)}: gate and up projection of the experts are one parameter: name both, "
            "or neither"
        ]
    if targets.choose(network, adapter.targets).experts:
        return expert_problems(adapter)
    return []


def without_weights(config: Any) -> Any:
    """The causal model of a config, on the meta device."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
