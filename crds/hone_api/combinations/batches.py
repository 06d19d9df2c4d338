"""How the rows of a step are divided among ranks and forward passes."""

from __future__ import annotations

from hone_api.blocks.training import LARGEST_BATCH, Training

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
    groups = world_size // training.ranks_of_row or 1
    rows = micro * groups
    if training.batch_size % rows == 0:
        return []
    # The next larger one: a size that nobody chose is the default, and most ranks need more rows than that.
    even = min(-(-training.batch_size // rows), LARGEST_BATCH // rows) * rows
    way_out = f"set it to {even}" if even else "use fewer ranks or a smaller microBatchSize"
    of_what = "ranks" if training.ranks_of_row == 1 else f"groups of {training.ranks_of_row} ranks"
    return [
        f"training.batchSize {training.batch_size} must be a multiple of {groups} {of_what} x microBatchSize {micro}: "
        f"{way_out}"
    ]
