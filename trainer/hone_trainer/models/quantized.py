"""4-bit layers that can be trained through: weights keep their layout, and the gradient is checked.

On processors with AVX512-BF16, bitsandbytes permanently repacks the weights of a `Linear4bit` at its first forward pass
in evaluation mode. The repacked layout has no backward pass: autograd sees a constant, so the gradient of every layer
below is cut without any message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.errors import TrainerError
from hone_trainer.models.network import Network

ROWS = 4
"""Inputs that a layer is checked with."""
AGREE = 0.99
"""Smallest cosine of a layer's gradient with that of its dequantised weights; rounding to bfloat16 leaves 0.9999."""


def is_in_4_bits(model: Network) -> bool:
    """Whether a model, or the base of its adapter, has bitsandbytes' 4-bit layers: as QLoRA rounds it, or as saved."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


def keep_layout(model: Network) -> None:
    """Stop bitsandbytes from repacking the model's 4-bit weights. Call before the first forward pass."""
    for _, layer in _layers(model):
        layer.support_avx512bf16_for_cpu = False


def check_gradient(model: Network) -> None:
    """Check that every 4-bit layer passes on the gradient of its dequantised weights after a forward pass in evaluation
    mode.

    By the chain rule the gradient of the whole model then agrees with the dequantised model's: all modules between
    these
    layers are plain PyTorch. One layer is dequantised at a time, so this works for a model of any size.

    Raises:
        TrainerError: GradientMismatch, with the first layer's name.
    """
    for name, layer in _layers(model):
        cosine = _cosine(layer)
        if not cosine > AGREE:
            device = layer.weight.device.type
            message = (
                f"the gradient through the 4-bit layer {name} on {device} does not agree with that "
                f"of its dequantised weights (cosine {cosine:.3f}, at least {AGREE} is right): nothing was trained"
            )
            raise TrainerError(FailureCode.GRADIENT_MISMATCH, message, rank=ranks.rank())


def _layers(model: Network) -> Iterator[tuple[str, Any]]:
    from bitsandbytes.nn import Linear4bit

    return ((name, module) for name, module in model.named_modules() if isinstance(module, Linear4bit))


def _cosine(layer: Any) -> float:
    """Cosine between the gradient through the layer and through its dequantised weights, for a random output vector."""
    import torch
    from bitsandbytes.functional import dequantize_4bit

    was_training, device = layer.training, layer.weight.device
    random = torch.Generator().manual_seed(0)  # a separate generator: the run's random state does not change
    x, slope = (torch.randn(ROWS, n, generator=random).to(device) for n in (layer.in_features, layer.out_features))
    layer.eval()
    with torch.no_grad():
        layer(x)
    layer.train()
    x.requires_grad_()
    output = layer(x)
    layer.train(was_training)
    if not output.requires_grad:
        return 0.0
    (ours,) = torch.autograd.grad(output, x, slope, allow_unused=True)
    if ours is None:
        return 0.0
    expected = slope @ dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    return float(torch.nn.functional.cosine_similarity(ours.double().flatten(), expected.double().flatten(), dim=0))
