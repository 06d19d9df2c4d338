"""Memory that runs out in a training step: rows of the forward pass can be fewer, unlike weights and optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hone_api.estimate.micro_batch import row_by_row
from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.errors import TrainerError, classify

if TYPE_CHECKING:
    from hone_trainer.training.loop import Run

CODES = frozenset({FailureCode.OUT_OF_MEMORY, FailureCode.GPU_OUT_OF_MEMORY})


def in_step(error: BaseException, run: Run, step: int) -> TrainerError | None:
    """The failure of a forward or backward pass that ran out of memory; None for another error.

    It has `micro_batch_size` where another attempt can have fewer rows in a pass, for the same result.
    """
    spent = classify(error)
    if spent.code not in CODES:
        return None
    rows, method = run.settings.micro_batch_size, run.plan.method
    can_halve = rows > 1 and row_by_row(run.plan)
    if can_halve:
        words = f"{rows} rows in a forward pass"
    elif rows > 1:
        words = f"{rows} rows in a forward pass, on which the loss of {method} depends, so that it is not made smaller"
    else:
        words = "1 row in a forward pass, which cannot be made smaller"
    return TrainerError(
        spent.code,
        f"step {step} with {words}: {spent.message}",
        rank=ranks.rank(),
        step=step,
        micro_batch_size=rows if can_halve else None,
    )
