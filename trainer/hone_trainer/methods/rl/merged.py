"""The weights of a model with a low-rank adapter as vLLM takes them: merged, and its base untouched.

TRL's `VLLMGeneration` merges in place at each step and takes the update out again. In 16 bits that does not give back
what was there, so that the base drifts from the weights that the exported adapter belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hone_trainer.models.network import Adapted, Generating

ADAPTER = "default"
"""peft's name of the one that is trained."""
BASE = ".base_layer.weight"
"""End of the names of frozen weights that have an update."""


def parameters(network: Adapted) -> Iterator[tuple[str, Any]]:
    """Names and weights of the base with the adapter merged into a copy, one at a time.

    In place of `VLLMGeneration._iter_named_params`, for models that are whole on each rank.

    Args:
        network: peft's model.
    """
    for name, weight in network.named_parameters():
        if network.prefix in name:  # of the adapter itself
            continue
        yield _plain(name), _merge_weight(network, name) if name.endswith(BASE) else weight.data


def _plain(name: str) -> str:
    """The name in the base model."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def _merge_weight(network: Generating, name: str) -> Any:
    """The weight that peft's own merge would write, of an adapted layer."""
    import torch

    layer = network.get_submodule(name.removesuffix(BASE))
    weight = layer.get_base_layer().weight.data
    with torch.no_grad():
        if variant := layer.lora_variant.get(ADAPTER):  # DoRA
            return variant.merge_safe(layer, ADAPTER, weight)
        return (weight + layer.get_delta_weight(ADAPTER)).to(weight.dtype)
