"""Padding-free attention on a CPU: rows are concatenated, and each attends only to itself.

transformers' own way on a CPU is one mask over all tokens x tokens of the batch, which discards everything except
the blocks on the diagonal. Kernels that take the bounds of rows (FlashAttention's varlen) are for GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAME = "hone_rows"
FAMILIES = frozenset({"llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"})
"""Whose every layer is causal attention by transformers' interface, and nothing else carries over between tokens."""
SHORT = 128
"""Tokens up to which plain products beat PyTorch's kernel in bfloat16, forward and backward (2 to 3 times; in float32
the kernel always wins). The probabilities that they keep are then less than a tenth of a layer's activations."""


def fits(config: Any) -> bool:
    """Whether the model of `config` supports padding-free rows here."""
    text = config.get_text_config()
    windowed = getattr(text, "sliding_window", None) is not None
    layers = set(getattr(text, "layer_types", None) or ["full_attention"])
    return text.model_type in FAMILIES and not windowed and layers == {"full_attention"}


@contextmanager
def by_row(config: Any) -> Iterator[None]:
    """Let the model of `config` attend so, in forward and backward (checkpointing runs layers again there).

    It must be called with `cu_seq_lens_q`: the bounds of its rows, int32 (rows + 1).
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    text = config.get_text_config()
    before = text._attn_implementation
    text._attn_implementation = NAME  # not registered with masks: transformers makes none
    try:
        yield
    finally:
        text._attn_implementation = before


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    cu_seq_lens_q: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Any, None]:
    """As transformers calls it.

    Args:
        query: (1, heads, tokens, size); key and value: (1, key heads, tokens, size).

    Returns:
        (1, tokens, heads, size), and no weights.
    """
    import torch

    assert attention_mask is None
    lengths = cu_seq_lens_q.diff().tolist()
    scale = scaling or 1 / math.sqrt(query.shape[-1])
    queries, keys, values = (x.split(lengths, dim=2) for x in (query, key, value))
    rows = [_row(q, k, v, scale, dropout) for q, k, v in zip(queries, keys, values, strict=True)]
    return torch.cat([row.transpose(1, 2) for row in rows], dim=1), None


def _row(query: Any, key: Any, value: Any, scale: float, dropout: float) -> Any:
    import torch

    if query.shape[2] > SHORT or query.dtype != torch.bfloat16 or dropout:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, dropout_p=dropout, enable_gqa=True
        )
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    later = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool).triu(1)
    scores = (query @ key.transpose(2, 3) * scale).masked_fill(later, -math.inf)
    return scores.softmax(-1) @ value  # summed in float32 inside, and kept in bfloat16
