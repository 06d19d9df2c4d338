"""Disk and time that a run needs, beside memory. Pure."""

from __future__ import annotations

from hone_api.estimate.memory import ADAM_BYTES, Setup

MFU = 0.35
"""Share of a GPU's peak that training reaches, assumed: large dense models on A100 and H100 reach 0.3 to 0.5
(PaLM, arXiv 2204.02311, appendix B; torchtune and Megatron-LM report the like)."""
CPU_TFLOPS = 0.05
"""Of one core in float32, assumed."""


def disk(s: Setup, *, keep: int, merge: bool) -> dict[str, int]:
    """Bytes in the store, by what for.

    Args:
        keep: newest checkpoints kept; the best one and the one being written come on top.
        merge: whether base and adapter are exported merged, too.
    """
    width = 2 if s.bf16 else 4
    whole = width * s.shape.parameters
    out = {"base model": 2 * s.shape.parameters, "checkpoints": (keep + 2) * s.trained * (4 + ADAM_BYTES)}
    if not s.adapted:
        return {**out, "full model": whole}
    return {**out, "adapter": 4 * s.trained, **({"merged model": whole} if merge else {})}


def flops(s: Setup, tokens: int) -> float:
    """Floating-point operations of training on so many tokens (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).

    Two a weight for the forward pass; two for the gradient of what comes in; two for that of the weights, of which a
    frozen base has none; two more where activations are computed again. Attention's own come on top, and the forward
    pass of a teacher whose distribution is learned.
    """
    per_weight = 2 + 2 + (0 if s.adapted else 2) + (2 if s.checkpointing else 0)
    attention = 6 * s.shape.layers * s.shape.query * s.max_length
    teacher = 2 * s.teacher.parameters if s.teacher else 0
    return float(tokens) * (per_weight * s.shape.parameters + attention + teacher)


def seconds(s: Setup, tokens: int, tflops: float) -> float:
    """Time of training on so many tokens, over all ranks, at the assumed share of the peak.

    Args:
        tflops: peak of one device; of a CPU what it reaches.
    """
    reached = tflops * 1e12 * (MFU if s.gpu else 1)
    return flops(s, tokens) / (reached * s.ranks)
