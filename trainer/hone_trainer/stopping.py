"""Early stopping, from the logged held-out losses alone. Pure, so that resuming cannot forget the patience."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def best_step(history: Sequence[dict[str, Any]], min_delta: float) -> int | None:
    """Step of the best held-out loss: the last one that beat its predecessor by more than `min_delta` nats.

    Args:
        history: transformers' `state.log_history`.
    """
    step, best = None, float("inf")
    for number, loss in _losses(history):
        if loss < best - min_delta or step is None:
            step, best = number, loss
    return step


def should_stop(history: Sequence[dict[str, Any]], patience: int, min_delta: float) -> bool:
    """Whether the last `patience` evaluations brought no improvement."""
    best = best_step(history, min_delta)
    return best is not None and sum(number > best for number, _ in _losses(history)) >= patience


def _losses(history: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]
