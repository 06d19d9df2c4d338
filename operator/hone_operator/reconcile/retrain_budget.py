"""GPU hours of the jobs that a Model created, by calendar month of UTC. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from hone_operator.reconcile.phases import gpus_of
from hone_operator.times import read_time


def gpu_seconds(job: Mapping[str, Any], now: datetime) -> float:
    """What the job held of GPUs in this month, from its start to its end."""
    status = job.get("status") or {}
    start, end = read_time(status.get("startTime")), read_time(status.get("completionTime")) or now
    if start is None:
        return 0.0
    return max(0.0, (end - max(start, _month(now))).total_seconds()) * gpus_of(job)


def next_month(now: datetime) -> datetime:
    """When the budget is whole again."""
    return (_month(now) + timedelta(days=32)).replace(day=1)


def _month(now: datetime) -> datetime:
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
