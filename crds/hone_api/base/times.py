"""Times in objects, which anybody may have written."""

from datetime import UTC, datetime

EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
"""All meaningful times are between these."""


def read_time(text: str | None) -> datetime | None:
    """Parse a text that anybody may have written; None if it is not a time, or not one that Python can calculate with.

    A definition's date-time allows more than Python parses: year 0, a small z, 99 hours of offset.
    """
    try:
        at = datetime.fromisoformat(text or "")
        return at if at.tzinfo and EARLIEST < at < LATEST else None
    except (ValueError, OverflowError, TypeError):
        return None
