"""How far a student is from its teacher: the forward KL divergence over the tokens that count.

Hinton et al. 2015 (arXiv 1503.02531) with a temperature; over the tokens of given answers it is the supervised KD of
Agarwal et al. 2024 (arXiv 2306.13649, equation 1 with the divergence KL(teacher || student)).
"""

from __future__ import annotations

from typing import Any

from hone_trainer.encoding.split_file import IGNORED

CHUNK = 128
"""Tokens whose probabilities are in memory at a time; of the others there are logits alone."""


def counted_positions(labels: Any) -> tuple[Any, Any]:
    """Which positions predict a token that counts.

    Args:
        labels: (rows, length), IGNORED where a token does not count.

    Returns:
        The positions (n) at which it does in some row, and whether it does (rows, n).
    """
    counts = labels[:, 1:] != IGNORED
    positions = counts.any(0).nonzero()[:, 0]
    return positions, counts[:, positions]


def summed(student: Any, teacher: Any, counts: Any, temperature: float) -> Any:
    """The divergence in nats, summed over the tokens that count and multiplied by the temperature's square, so that
    its gradient keeps its size (Hinton et al., section 2). Only the student has a gradient.

    Args:
        student: logits (rows, n, vocabulary); teacher: the same. An embedding that is padded further than the other
            has logits of no token at its end, which are left out.
        counts: (rows, n).
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    width = min(student.shape[-1], teacher.shape[-1])
    ours, theirs = (logits[..., :width].flatten(0, 1).split(CHUNK) for logits in (student, teacher))
    weights = counts.flatten().split(CHUNK)

    def recomputed(*part: Any) -> Any:
        """Backward computes the probabilities again instead of keeping them."""
        return checkpoint(_chunk, *part, temperature, use_reentrant=False, preserve_rng_state=False)

    return torch.stack([recomputed(*part) for part in zip(ours, theirs, weights, strict=True)]).sum() * temperature**2


def _chunk(student: Any, teacher: Any, counts: Any, temperature: float) -> Any:
    """Summed over (tokens, vocabulary)."""
    p = (teacher.float() / temperature).log_softmax(-1)
    q = (student.float() / temperature).log_softmax(-1)
    return ((p.exp() * (p - q)).sum(-1) * counts).sum()
