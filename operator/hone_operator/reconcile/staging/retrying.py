"""Wording for a condition while a failed staging attempt is retried: same reason, another end of the message."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hone_api.words.states import AnyReason, Quoted
from hone_operator.reconcile.staging.staging_attempts import StagingAttempts
from hone_operator.times import format_time

_END = re.compile(r" (Attempt \d+ (starts at|is under way|waits)\b.*)?$", re.DOTALL)


def later(message: str, number: int, start: datetime) -> str:
    """Attempt `number` has not begun. A time instead of a countdown keeps the message stable."""
    return f"{message.rstrip()} Attempt {number} starts at {format_time(start)}."


def underway(message: str, number: int) -> str:
    """Attempt `number` runs."""
    return f"{message.rstrip()} Attempt {number} is under way."


def held_up(message: str, number: int, obstacle: str) -> str:
    """Attempt `number` exists but cannot run yet."""
    return f"{message.rstrip()} Attempt {number} waits: {obstacle}"


def still(before: Mapping[str, Any], attempts: StagingAttempts) -> tuple[AnyReason, str]:
    """Reason and message while a new attempt has no result; `before` is the condition that reported the failure."""
    failed = cut(before.get("message", ""))
    if attempts.obstacle:
        return Quoted(before["reason"]), held_up(failed, attempts.number, attempts.obstacle.message)
    return Quoted(before["reason"]), underway(failed, attempts.number)


def cut(message: str) -> str:
    """The failure, without the part about the next attempt."""
    return _END.sub("", f"{message} ").rstrip()
