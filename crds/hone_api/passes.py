"""Rows of one forward pass when nobody names training.microBatchSize: the run and its estimate agree."""

from __future__ import annotations

from hone_api.methods import Method

LARGEST_MICRO_BATCH = 8
"""Rows: more rarely help, and memory grows with them."""
CPU_TOKENS = 512
"""Tokens of a pass on a CPU: more of them are faster where rows are short, and need more memory."""
BY_TOKENS = frozenset({Method.SFT, Method.DAPT, Method.DISTILLATION})
"""Methods whose passes a CPU bounds by tokens; elsewhere the rows of a pass are compared, or sampled together."""


def micro_batch(per_rank: int, longest: int | None = None) -> int:
    """The largest divisor of the `per_rank` rows of a step that a pass takes.

    Args:
        longest: tokens of the longest row, where CPU_TOKENS bound the pass; one row fits always.
    """
    limit = LARGEST_MICRO_BATCH if longest is None else min(LARGEST_MICRO_BATCH, CPU_TOKENS // longest)
    return next((d for d in range(min(per_rank, limit), 0, -1) if per_rank % d == 0), 1)
