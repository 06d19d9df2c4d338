"""`torch.nn.attention.varlen.varlen_attn` in plain torch, for devices that it has no kernel for: the same arguments,
and the same numbers. It also takes what that one does not: dropout, caps on scores, and sinks.
"""

from __future__ import annotations

import math
from typing import Any

SHORT = 128
"""Tokens up to which plain products beat PyTorch's kernel in bfloat16 on a CPU, forward and backward (2 to 3 times; in
float32 the kernel always wins). The probabilities that they keep are then less than a tenth of a layer's
activations."""


def varlen_attn(
    query: Any,
    key: Any,
    value: Any,
    cu_seq_q: Any,
    cu_seq_k: Any,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    dropout: float = 0.0,
    softcap: float | None = None,
    sinks: Any = None,
    lengths: list[int] | None = None,
) -> Any:
    """Each row by itself. Queries and keys have the same rows, and the window ends at the token itself.

    Args:
        query: (tokens, heads, size); key and value: (tokens, key heads, size).
        window_size: tokens before the query that it sees, -1 for all; and 0.
        softcap: limit of scores, by tanh.
        sinks: a score of each head (heads) that takes a part of its attention.
        lengths: of the rows, where the host knows them.

    Returns:
        (tokens, heads, size of a value).
    """
    import torch

    assert window_size[1] == 0
    assert enable_gqa or query.shape[1] == key.shape[1]
    parts = cu_seq_q.diff().tolist() if lengths is None else lengths
    scale = scale or 1 / math.sqrt(query.shape[-1])
    rows = zip(*(x.transpose(0, 1)[None].split(parts, dim=2) for x in (query, key, value)), strict=True)
    before = window_size[0]
    if softcap is None and sinks is None:
        result = [_row(q, k, v, scale, before, dropout) for q, k, v in rows]
    else:
        result = [_attend(q, k, v, scale, before, softcap, sinks) for q, k, v in rows]
    return torch.cat([row[0].transpose(0, 1) for row in result])


def _row(query: Any, key: Any, value: Any, scale: float, before: int, dropout: float) -> Any:
    import torch

    tokens = query.shape[2]
    if tokens > SHORT or query.dtype != torch.bfloat16 or query.is_cuda or dropout:
        mask = None if before < 0 or tokens <= before + 1 else ~_hidden(query, before)
        if mask is not None or query.is_cuda:  # shared keys leave only the kernel that keeps all scores
            key, value = _for_all_heads(query, key, value)
        return torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            dropout_p=dropout,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return _attend(query, key, value, scale, before, None, None)


def _attend(query: Any, key: Any, value: Any, scale: float, before: int, softcap: float | None, sinks: Any) -> Any:
    """By plain products."""
    import torch

    key, value = _for_all_heads(query, key, value)
    scores = query @ key.transpose(2, 3) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(_hidden(query, before), -math.inf)
    if sinks is not None:
        column = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        return torch.cat([scores, column], dim=-1).softmax(-1)[..., :-1] @ value
    return scores.softmax(-1) @ value  # summed in float32 inside, and kept in bfloat16


def _for_all_heads(query: Any, key: Any, value: Any) -> tuple[Any, Any]:
    groups = query.shape[1] // key.shape[1]
    return (key, value) if groups == 1 else (key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1))


def _hidden(query: Any, before: int) -> Any:
    """(tokens, tokens): True where a token must not see another."""
    import torch

    ones = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool, device=query.device)
    later = ones.triu(1)
    return later if before < 0 else later | ones.tril(-before - 1)
