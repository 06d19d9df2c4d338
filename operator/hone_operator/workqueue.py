"""A work queue of keys: many requests for a key become one run, and no key runs twice at a time.

Runs that fail come again with exponential backoff and jitter; a run may ask to come again after a while.
"""

import asyncio
import heapq
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
log = logging.getLogger(__name__)

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 120.0


class WorkQueue(Generic[K]):
    """`process(key)` returns the seconds after which the key is to be run again, or None.

    Times are of the event loop's clock. Not thread-safe: use from one event loop.
    """

    def __init__(
        self, process: Callable[[K], Awaitable[float | None]], concurrency: int = 16, run_limit: float = 120.0
    ):
        self._process = process
        self._concurrency = concurrency
        self._run_limit = run_limit
        self._ready: dict[K, float] = {}
        """Key -> when it was asked for; dictionaries keep the order."""
        self._running: dict[K, float] = {}
        self._again: set[K] = set()
        """Asked for while running."""
        self._due: dict[K, float] = {}
        self._timers: list[tuple[float, int, K]] = []
        self._count = 0
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()
        self.on_failure: Callable[[K, BaseException], None] | None = None
        self.caught_up = False
        """Whether nothing was left to do at least once."""

    def request(self, key: K, after: float = 0.0) -> None:
        """Run `key` now, or after some seconds; an earlier request wins."""
        now = asyncio.get_running_loop().time()
        if after > 0:
            self._schedule(key, now + after)
        elif key in self._running:
            self._again.add(key)
        else:
            self._ready.setdefault(key, now)
            self._wake.set()

    def forget(self, key: K) -> None:
        """The object is gone: no timer, no backoff."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    def _schedule(self, key: K, when: float) -> None:
        if when < self._due.get(key, float("inf")):
            self._due[key] = when
            self._count += 1  # keys need not be comparable
            heapq.heappush(self._timers, (when, self._count, key))
            self._wake.set()

    @property
    def depth(self) -> int:
        """Keys that wait to be run now."""
        return len(self._ready)

    def oldest_wait(self) -> float:
        """Seconds that the oldest ready or running key has been at it; grows without end when we are stuck."""
        now = asyncio.get_running_loop().time()
        return max((now - t for t in (*self._ready.values(), *self._running.values())), default=0.0)

    async def run(self) -> None:
        """Work until cancelled; then running keys are cancelled too."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                wait = self._move_due()
                while self._ready and len(self._running) < self._concurrency:
                    key = next(iter(self._ready))
                    self._running[key] = self._ready.pop(key)
                    group.create_task(self._run(key))
                self.caught_up = self.caught_up or not (self._ready or self._running)
                try:
                    await asyncio.wait_for(self._wake.wait(), wait)
                except TimeoutError:
                    continue

    def _move_due(self) -> float | None:
        """Make due keys ready; the seconds until the next one is."""
        now = asyncio.get_running_loop().time()
        while self._timers:
            when, _, key = self._timers[0]
            if self._due.get(key) != when:
                heapq.heappop(self._timers)  # superseded
            elif when <= now:
                heapq.heappop(self._timers)
                del self._due[key]
                self.request(key)
            else:
                return when - now
        return None

    async def _run(self, key: K) -> None:
        self._due.pop(key, None)  # this run decides anew when to come again
        try:
            async with asyncio.timeout(self._run_limit):
                after = await self._process(key)
            self._failures.pop(key, None)
        except Exception as error:
            after = self._backoff(key, error)
        finally:
            del self._running[key]
            self._wake.set()
        if key in self._again:
            self._again.discard(key)
            # A key that fails is not run at once because it was asked for: that would defeat the backoff.
            if key not in self._failures:
                self.request(key)
                return
        if after is not None:
            self.request(key, max(after, 0.001))

    def _backoff(self, key: K, error: BaseException) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        wait = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (failures - 1))
        wait = max(wait * random.uniform(0.75, 1.25), getattr(error, "retry_after", None) or 0.0)
        if self.on_failure:
            self.on_failure(key, error)
        else:
            log.warning("%s failed, again in %.1f s: %s", key, wait, error)
        return wait
