"""Early stopping, computed only from the logged held-out metric. Pure, so that a resume cannot lose the patience."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hone_trainer.scoring.scores import Best


@dataclass(frozen=True)
class Goal:
    """The held-out metric that decides which step is best."""

    metric: str = "loss"
    best: Best = "Lowest"

    def cost(self, value: float) -> float:
        """The value, negated if higher is better, so that lower is better."""
        return value if self.best == "Lowest" else -value


LOSS = Goal()


def best_step(history: Sequence[dict[str, Any]], min_delta: float, goal: Goal = LOSS) -> int | None:
    """Step of the best held-out value: the last one that beat its predecessor by more than `min_delta`.

    Args:
        history: transformers' `state.log_history`.
        min_delta: in the metric's unit; for a loss, nats.
    """
    step, best = None, float("inf")
    for number, cost in _costs(history, goal):
        if cost < best - min_delta or step is None:
            step, best = number, cost
    return step


def should_stop(history: Sequence[dict[str, Any]], patience: int, min_delta: float, goal: Goal = LOSS) -> bool:
    """Whether the last `patience` evaluations brought no improvement."""
    best = best_step(history, min_delta, goal)
    return best is not None and sum(number > best for number, _ in _costs(history, goal)) >= patience


def _costs(history: Sequence[dict[str, Any]], goal: Goal) -> list[tuple[int, float]]:
    name = f"eval_{goal.metric}"
    return [(entry["step"], goal.cost(entry[name])) for entry in history if name in entry]
