"""GPU hours of the jobs that a Model created: of a calendar month of UTC, and of the repeated job's budget. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from hone_api.blocks.placement import Budget
from hone_api.estimate.gpu_time import seconds_held


def gpu_seconds(job: Mapping[str, Any], now: datetime) -> float:
    """What the attempts of a job held of GPUs in this month."""
    return seconds_held(job, now, _month(now))


def next_month(now: datetime) -> datetime:
    """When the budget is whole again."""
    return (_month(now) + timedelta(days=32)).replace(day=1)


def hours_left(template: Mapping[str, Any], own: Iterable[Mapping[str, Any]], now: datetime) -> float | None:
    """GPU hours that the budget of the repeated job leaves for the next one; None: it has no budget.

    Args:
        own: jobs that repeat it, or repeated an earlier one, whose hours do not count.
    """
    if not (body := template["spec"].get("budget")):
        return None
    try:
        whole = Budget.model_validate(body).hours
    except ValidationError:  # of another release: the API server decides about the next job
        return None
    begin = template["metadata"].get("creationTimestamp") or ""
    later = [job for job in own if (job["metadata"].get("creationTimestamp") or "") >= begin]
    return whole - sum(seconds_held(job, now) for job in (template, *later)) / 3600


def _month(now: datetime) -> datetime:
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
