"""Disk and time that a run needs, in addition to memory. Pure."""

from __future__ import annotations

import math

from hone_api.blocks.shape import ModelShape
from hone_api.estimate.memory import Setup, adam_bytes

SMALL, LARGE = (0.6e9, 0.168), (8e9, 0.406)
"""Weights of a model, and the fraction of an H100's peak that training reaches: full fine-tuning on rows of 8,192
tokens (prime-rl), LoRA on rows of 4,096 (NeMo Automodel)."""
GPU_RANGE = (0.6, 1.3)
"""Factors on the fraction that these give, for all that the size does not say: length of rows, adapter, card.
Published runs are between: 21.7 % for LoRA on a 4B model on rows of 16,384 tokens (prime-rl), 0.63 of what its size
gives; 50 % in the best of PaLM (arXiv 2204.02311, appendix B), 1.23 of it."""
SLOWER_ATTENTION = 4
"""Factor on the time of attention by the slowest kernel. The kernel is chosen from a pass of the loaded model, so it is
not known before the run. FlashAttention-3 is up to twice as fast as its second version (arXiv 2407.08608), and that
about twice as fast as the first (arXiv 2307.08691), which SDPA's kernel for masks is like."""
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
    out = {"base model": 2 * s.shape.parameters, "checkpoints": (keep + 2) * (4 * s.trained + adam_bytes(s))}
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
    teacher = 2 * s.teacher.used if s.teacher else 0
    return float(tokens) * (per_weight * s.shape.used + _attention(s) + teacher)


def _attention(s: Setup) -> int:
    """Operations of attention on one token."""
    return 6 * s.shape.layers * s.shape.query * s.max_length


def model_flops(shape: ModelShape, length: float, *, frozen: bool) -> float:
    """Operations of training on one token, as model FLOPs utilisation counts them.

    PaLM (arXiv 2204.02311, appendix B): 6 for each of N weights, and 12 L H Q T for attention, as if no token were
    masked; what checkpointing computes again does not count. Of the 6, 2 are for the gradients of the weights, and a
    frozen base has none: 4 N. The adapter's own products, about 1 % of it, are left out.

    Args:
        length: mean tokens of a row.
    """
    return (4 if frozen else 6) * shape.used + 12 * shape.layers * shape.query * length


def mfu(s: Setup) -> float:
    """The expected fraction of a GPU's peak: larger matrices keep it busier."""
    (small, low), (large, high) = SMALL, LARGE
    place = math.log(s.shape.used / small) / math.log(large / small)
    return low + (high - low) * min(max(place, 0), 1)


def seconds(s: Setup, tokens: int, tflops: float) -> float:
    """Time of training on this many tokens, over all ranks, at the expected fraction of the peak.

    Args:
        tflops: peak of one device; for a CPU, what it reaches.
    """
    reached = tflops * 1e12 * (mfu(s) if s.gpu else 1)
    return flops(s, tokens) / (reached * s.ranks)


def seconds_range(s: Setup, tokens: int, tflops: float) -> tuple[float, float]:
    """The shortest and the longest time of training that is likely.

    Args:
        tflops: see `seconds`.
    """
    expected = seconds(s, tokens, tflops)
    slowest, fastest = GPU_RANGE if s.gpu else CPU_RANGE
    share = tokens * _attention(s) / flops(s, tokens) if s.gpu and tokens else 0
    return expected / fastest, expected / slowest * (1 + share * (SLOWER_ATTENTION - 1))
