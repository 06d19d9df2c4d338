"""Steps at which the training loss jumped, from the logged curve alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

WINDOW = 20
"""Logged losses that a loss is compared with: those just before it."""
ENOUGH = 5
"""Fewer say nothing of what is usual."""
FACTOR = 2.0
DEVIATIONS = 10.0
"""A spike is above the median by this factor and by so many median absolute deviations: batches differ, too."""


def spikes(history: Sequence[dict[str, Any]]) -> list[tuple[int, float, float]]:
    """(step, loss, median of the losses before) of each spike.

    Args:
        history: transformers' `state.log_history`.
    """
    losses = [(entry["step"], float(entry["loss"])) for entry in history if "loss" in entry]
    found = []
    for index, (step, loss) in enumerate(losses):
        before = [value for _, value in losses[max(0, index - WINDOW) : index]]
        if len(before) < ENOUGH:
            continue
        usual = median(before)
        spread = median(abs(value - usual) for value in before)
        if loss > FACTOR * usual and loss > usual + DEVIATIONS * spread:
            found.append((step, loss, usual))
    return found


def sentences(history: Sequence[dict[str, Any]]) -> list[str]:
    """What to tell of them; empty without any."""
    found = spikes(history)
    if not found:
        return []
    where = ", ".join(f"step {step}: {loss:.3g} after {usual:.3g}" for step, loss, usual in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return [f"the training loss jumped {len(found)} times ({where}{more}): lower learningRate, or look at the rows."]
