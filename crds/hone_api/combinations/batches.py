"""How the rows of a step are divided among ranks and forward passes."""

from __future__ import annotations

from hone_api.training import Training

LARGEST_MICRO_BATCH = 8
"""Maximum rows of a micro batch by default: more rarely help, and memory grows with them."""


def divisors(rows: int) -> list[int]:
    """Sizes of a micro batch that divide a rank's `rows` equally, largest first; the last is 1."""
    return [d for d in range(min(rows, LARGEST_MICRO_BATCH), 1, -1) if rows % d == 0] + [1]


def at_most(micro: int, rows: int, limit: int | None) -> int:
    """The size of a micro batch that divides a rank's `rows` equally, at most `limit`; `micro` where there is none."""
    if limit is None or micro <= limit:
        return micro
    return next(size for size in range(limit, 0, -1) if rows % size == 0)


def batch_problems(training: Training, world_size: int) -> list[str]:
    """Why the rows of a step cannot be divided evenly."""
    micro = training.fixed_micro_batch or 1
    if training.batch_size % (micro * world_size) == 0:
        return []
    return [
        f"training.batchSize {training.batch_size} must be a multiple of {world_size} ranks x microBatchSize {micro}"
    ]
