"""Disk and time that a run needs, in addition to memory. Pure."""

from __future__ import annotations

from hone_api.blocks.shape import ModelShape
from hone_api.estimate.memory import ADAM_BYTES, Setup

MFU = 0.35
"""Assumed fraction of a GPU's peak that training reaches: large dense models on A100 and H100 reach 0.3 to 0.5
(PaLM, arXiv 2204.02311, appendix B; torchtune and Megatron-LM report similar values)."""
MFU_RANGE = (0.15, 0.5)
"""Fractions between which published runs are: on an H100 17 % in full fine-tuning of a 0.6B model on rows of 8,192
tokens (prime-rl) and 41 % with LoRA on an 8B model (NeMo Automodel); 50 % in the best of `MFU`."""
CPU_RANGE = (0.5, 2.0)
"""Factors on `CPU_TFLOPS`: cores differ."""
CPU_TFLOPS = 0.05
"""Assumed peak of one core in float32."""


def disk(s: Setup, *, keep: int, merge: bool) -> dict[str, int]:
    """Bytes in the store, by purpose.

    Args:
        keep: newest checkpoints kept, in addition to the best one and the one being written.
        merge: whether the merge of base and adapter is also exported.
    """
    width = 2 if s.bf16 else 4
    model_bytes = width * s.shape.parameters
    out = {"base model": 2 * s.shape.parameters, "checkpoints": (keep + 2) * s.trained * (4 + ADAM_BYTES)}
    if not s.adapted:
        return {**out, "full model": model_bytes}
    return {**out, "adapter": 4 * s.trained, **({"merged model": model_bytes} if merge else {})}


def flops(s: Setup, tokens: int) -> float:
    """Floating-point operations of training on this many tokens (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).

    For each weight: two for the forward pass, two for the gradient of the input, two for the gradient of the weight
    (none for a frozen base), and two more if activations are recomputed. Attention's own operations are added, and the
    forward pass of a teacher whose distribution is learned.
    """
    per_weight = 2 + 2 + (0 if s.adapted else 2) + (2 if s.checkpointing else 0)
    attention = 6 * s.shape.layers * s.shape.query * s.max_length
    teacher = 2 * s.teacher.parameters if s.teacher else 0
    return float(tokens) * (per_weight * s.shape.parameters + attention + teacher)


def model_flops(shape: ModelShape, length: float, *, frozen: bool) -> float:
    """Operations of training on one token, as model FLOPs utilisation counts them.

    PaLM (arXiv 2204.02311, appendix B): 6 for each of N weights, and 12 L H Q T for attention, as if no token were
    masked; what checkpointing computes again does not count. Of the 6, 2 are for the gradients of the weights, and a
    frozen base has none: 4 N. The adapter's own products, about 1 % of it, are left out.

    Args:
        length: mean tokens of a row.
    """
    return (4 if frozen else 6) * shape.parameters + 12 * shape.layers * shape.query * length


def seconds(s: Setup, tokens: int, tflops: float) -> float:
    """Time of training on this many tokens, over all ranks, at the assumed fraction of the peak.

    Args:
        tflops: peak of one device; for a CPU, what it reaches.
    """
    reached = tflops * 1e12 * (MFU if s.gpu else 1)
    return flops(s, tokens) / (reached * s.ranks)


def seconds_range(s: Setup, tokens: int, tflops: float) -> tuple[float, float]:
    """The shortest and the longest time of training that is likely.

    Args:
        tflops: see `seconds`.
    """
    expected = seconds(s, tokens, tflops)
    low, high = (MFU / fraction for fraction in reversed(MFU_RANGE)) if s.gpu else CPU_RANGE
    return expected * low, expected * high
