"""Python's garbage collector beside a large cache.

The cache holds dictionaries that live long, and a collection of the oldest generation walks all of them while nothing
else runs: 0.1 s of CPU for 10,000 FineTuneJobs, each time that the cache has grown by a quarter. What lives long is set
aside here (`gc.freeze`), and cycles among it are looked for now and then.
"""

import asyncio
import gc

YOUNG = 20_000
"""Objects made, less those that are gone, from which on the young ones are looked through; Python's own is 700."""
OLDER = 20
"""Rounds of the young ones before those that survived them are looked through."""
OLDEST = 1_000
"""Rounds of these before the oldest are: `keep_aside` comes earlier."""


def set_aside() -> None:
    """Collect everything once, and leave out of further collections what is there."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


async def keep_aside(seconds: float) -> None:
    """Set aside what there is now and every `seconds`."""
    gc.set_threshold(YOUNG, OLDER, OLDEST)
    while True:
        set_aside()
        await asyncio.sleep(seconds)
