"""Times as Kubernetes writes them."""

from datetime import UTC, datetime

EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
"""All meaningful times are between these."""


def parse_time(text: str) -> datetime:
    """RFC 3339 as Kubernetes writes it."""
    return datetime.fromisoformat(text)


def read_time(text: str | None) -> datetime | None:
    """Parse a text that anybody may have written; None if it is not a time, or not one that Python can calculate with.

    A definition's date-time allows more than Python parses: year 0, a small z, 99 hours of offset.
    """
    try:
        at = datetime.fromisoformat(text or "")
        return at if at.tzinfo and EARLIEST < at < LATEST else None
    except (ValueError, OverflowError, TypeError):
        return None


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
