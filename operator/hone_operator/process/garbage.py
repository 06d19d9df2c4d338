"""Python's garbage collector next to a large cache.

The cache holds long-lived dictionaries, and a collection of the oldest generation walks all of them while nothing else
runs: 0.1 s of CPU for 10,000 FineTuneJobs, each time the cache has grown by a quarter. So long-lived objects are set
aside here (`gc.freeze`), and cycles among them are collected at intervals, and when many objects were deleted.
"""

import asyncio
import gc
from collections.abc import Callable, Sized

YOUNG = 20_000
"""Allocations minus deallocations that trigger a collection of the young generation; Python's default is 700."""
OLDER = 20
"""Collections of the young generation before one of the middle generation."""
OLDEST = 1_000
"""Collections of the middle generation before one of the oldest: `keep_aside` comes earlier."""
MANY = 500
"""Objects; what fewer leave waits for its turn."""
LOOK_SECONDS = 10.0


def set_aside() -> None:
    """Collect everything once, and exclude what remains from further collections."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class Shrinking:
    """Says when half of at least `MANY` objects are gone, so that it pays to collect what they leave."""

    def __init__(self) -> None:
        self._most = 0

    def now(self, count: int) -> bool:
        """Whether half of the most objects since the last time are gone."""
        self._most = max(self._most, count)
        if self._most < MANY or 2 * count > self._most:
            return False
        self._most = count
        return True


async def keep_aside(cache: Sized, forget: Callable[[], None], seconds: float) -> None:
    """Set aside all objects now, every `seconds`, and when half of those in the cache are gone.

    Args:
        cache: the long-lived objects.
        forget: called before the latter: strings that objects shared keep memory of those that are gone.
    """
    gc.set_threshold(YOUNG, OLDER, OLDEST)
    shrinking, loop = Shrinking(), asyncio.get_running_loop()
    due = 0.0
    while True:
        if shrunk := shrinking.now(len(cache)):
            forget()
        if shrunk or loop.time() >= due:
            set_aside()
            due = loop.time() + seconds
        await asyncio.sleep(min(seconds, LOOK_SECONDS))
