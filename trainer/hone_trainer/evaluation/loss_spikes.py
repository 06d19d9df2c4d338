"""Finds steps at which the training loss jumped, and a loss that rose, from the logged curve alone. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Any

WINDOW = 20
"""Number of preceding logged losses that a loss is compared with."""
ENOUGH = 5
"""Fewer losses do not show what is usual."""
FACTOR = 2.0
DEVIATIONS = 10.0
"""A spike exceeds the median by this factor and by this many median absolute deviations, since batches differ."""


RISE = 1.05
"""The loss has risen if the last quarter's mean exceeds the first quarter's by this factor."""
FEWEST = 8
"""Least number of logged losses for comparing quarters."""
SURE = 3.0
"""Least standard errors of the rise, since batches differ."""


def spikes(history: Sequence[dict[str, Any]]) -> list[tuple[int, float, float]]:
    """(step, loss, median of the preceding losses) of each spike.

    Args:
        history: transformers' `state.log_history`.
    """
    losses = [(entry["step"], float(entry["loss"])) for entry in history if "loss" in entry]
    result = []
    for index, (step, loss) in enumerate(losses):
        before = [value for _, value in losses[max(0, index - WINDOW) : index]]
        if len(before) < ENOUGH:
            continue
        usual = median(before)
        spread = median(abs(value - usual) for value in before)
        if loss > FACTOR * usual and loss > usual + DEVIATIONS * spread:
            result.append((step, loss, usual))
    return result


def sentences(history: Sequence[dict[str, Any]]) -> list[str]:
    """Warnings about jumps and about a rise; empty without any."""
    return [*_jumps(history), *_rise(history)]


def _rise(history: Sequence[dict[str, Any]]) -> list[str]:
    losses = [float(entry["loss"]) for entry in history if "loss" in entry]
    quarter = len(losses) // 4
    if len(losses) < FEWEST:
        return []
    first, last = fmean(losses[:quarter]), fmean(losses[-quarter:])
    # The noise of a curve with any trend shows in the differences of neighbours (von Neumann 1941).
    noise = math.sqrt(fmean((after - before) ** 2 for before, after in pairwise(losses)) / 2)
    if last <= RISE * first or last - first <= SURE * noise * math.sqrt(2 / quarter):
        return []
    return [
        f"the training loss rose from {first:.3g} to {last:.3g}, in the means of the first and the last quarter of the "
        "steps: the model is worse than before at what it was trained on; lower learningRate."
    ]


def _jumps(history: Sequence[dict[str, Any]]) -> list[str]:
    jumps = spikes(history)
    if not jumps:
        return []
    where = ", ".join(f"step {step}: {loss:.3g} after {usual:.3g}" for step, loss, usual in jumps[:5])
    more = f" and {len(jumps) - 5} more" if len(jumps) > 5 else ""
    return [f"the training loss jumped {len(jumps)} times ({where}{more}): lower learningRate, or look at the rows."]
