"""The learning rate of a run that goes on with a lower one than its checkpoint was written with."""

from __future__ import annotations

from typing import Any

from hone_api.plan import TrainingPlan


def set_rate(scheduler: Any, rate: float) -> None:
    """Make `rate` the highest of the schedule, from its present step on.

    A checkpoint brings the rate that it was written with: in the optimizer's groups and in the schedule's state.

    Args:
        scheduler: torch's LambdaLR, or the one that accelerate or DeepSpeed wraps around it.
    """
    schedule = getattr(scheduler, "scheduler", scheduler)
    current = [rate * factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    schedule.load_state_dict({**schedule.state_dict(), "base_lrs": [rate for _ in current], "_last_lr": current})
    for group, value in zip(schedule.optimizer.param_groups, current, strict=True):
        group["initial_lr"], group["lr"] = rate, value


def advice(plan: TrainingPlan, rate: float) -> list[str]:
    """What to say about a rate that is not the one asked for."""
    halvings = plan.learning_rate_halvings
    if not halvings:
        return []
    times = "once" if halvings == 1 else f"{halvings} times"
    return [
        f"the loss diverged, and the learning rate was halved {times}, to {rate:g}: set training.learningRate to "
        f"{rate:g} in the next job, and look at the rows that the failed attempts name."
    ]
