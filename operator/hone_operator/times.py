"""Times as Kubernetes writes them."""

from datetime import datetime

from hone_api.base.times import EARLIEST as EARLIEST
from hone_api.base.times import LATEST as LATEST
from hone_api.base.times import read_time as read_time


def parse_time(text: str) -> datetime:
    """RFC 3339 as Kubernetes writes it."""
    return datetime.fromisoformat(text)


def format_time(time: datetime) -> str:
    """RFC 3339 in whole seconds, as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


LONGEST_SECONDS = 100 * 365 * 86400
"""A hundred years: what is longer counts as so long, for no date is that far away."""


def duration_seconds(text: str) -> float:
    """'1h30m' -> 5400; at most `LONGEST_SECONDS`."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    total, digits = 0, ""
    for c in text:
        if c.isdigit():
            digits += c
        else:
            total += int(digits) * unit[c]
            digits = ""
    return float(min(total, LONGEST_SECONDS))
