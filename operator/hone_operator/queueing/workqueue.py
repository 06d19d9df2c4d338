"""A work queue of keys: many requests for a key become one run, and a key never runs twice at the same time.

Failed runs are retried with exponential backoff and jitter; a run may request another run after some time.
Tenants take turns: a flood of keys from one tenant delays only that tenant.
"""

import asyncio
import heapq
import logging
import random
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
log = logging.getLogger(__name__)

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 120.0
ALONE, AMONG_OTHERS = 0.75, 0.25
"""The fraction of concurrent runs that one tenant may hold. Slow runs of one tenant never take the last slot, and a
flood from one tenant loads neither the event loop nor the API server much while others work."""
RECENT_SECONDS = 10.0
"""Seconds after a run of another tenant during which a tenant counts as working among others."""


class FairQueue(Generic[K]):
    """Keys that are ready, first in first out within a tenant; tenants take turns."""

    def __init__(self, tenant_of: Callable[[K], Hashable]):
        self._tenant_of = tenant_of
        self._waiting: OrderedDict[Hashable, dict[K, float]] = OrderedDict()
        """Tenant -> key -> when it was requested. The first tenant has the next turn."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: K, now: float) -> None:
        """Append the key; a key that already waits keeps its place."""
        keys = self._waiting.setdefault(self._tenant_of(key), {})
        if key not in keys:
            keys[key] = now
            self._count += 1

    def pop(self, full: Callable[[Hashable], bool]) -> tuple[K, float] | None:
        """Remove the next key and the time of its request; None if every waiting tenant is `full`."""
        for tenant, keys in self._waiting.items():
            if full(tenant):
                continue
            key = next(iter(keys))
            since = keys.pop(key)
            self._count -= 1
            if keys:
                self._waiting.move_to_end(tenant)
            else:
                del self._waiting[tenant]
            return key, since
        return None

    def oldest(self) -> float | None:
        """When the longest-waiting key was requested."""
        return min((next(iter(keys.values())) for keys in self._waiting.values()), default=None)

    def keys(self) -> set[K]:
        """All waiting keys."""
        return {key for keys in self._waiting.values() for key in keys}


class WorkQueue(Generic[K]):
    """`process(key)` returns the seconds after which to run the key again, or None.

    Times are those of the event loop's clock. Not thread-safe: use from one event loop.
    """

    def __init__(
        self,
        process: Callable[[K], Awaitable[float | None]],
        concurrency: int = 16,
        run_limit: float = 120.0,
        tenant_of: Callable[[K], Hashable] | None = None,
    ):
        self._process = process
        self._concurrency = concurrency
        self._run_limit = run_limit
        self._tenant_of: Callable[[K], Hashable] = tenant_of or (lambda key: None)
        self._limits = [max(1, int(concurrency * f)) if tenant_of else concurrency for f in (ALONE, AMONG_OTHERS)]
        self._recent: OrderedDict[Hashable, float] = OrderedDict()
        """When each tenant had its last run, oldest first."""
        self._ready: FairQueue[K] = FairQueue(self._tenant_of)
        self._running: dict[K, float] = {}
        """Running keys and when their runs began."""
        self._last_start = float("-inf")
        self._slots: Counter[Hashable] = Counter()
        """Running keys by tenant."""
        self._again: set[K] = set()
        """Keys that were requested while running."""
        self._due: dict[K, float] = {}
        self._timers: list[tuple[float, int, K]] = []
        self._count = 0
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()
        self.on_failure: Callable[[K, BaseException], None] | None = None
        self._at_first: set[K] | None = None
        """Keys that waited at the start and have not had a run; None before the start."""

    def request(self, key: K, after: float = 0.0) -> None:
        """Run `key` now, or after some seconds; an earlier request wins."""
        now = asyncio.get_running_loop().time()
        if after > 0:
            self._schedule(key, now + after)
        elif key in self._running:
            self._again.add(key)
        else:
            self._ready.add(key, now)
            self._wake.set()

    def forget(self, key: K) -> None:
        """Drop timer and backoff of a deleted object."""
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
        """Number of keys that wait to run now."""
        return len(self._ready)

    @property
    def caught_up(self) -> bool:
        """Whether every key that waited at the start has had a run. Later keys do not count: a tenant that requests
        more and more must not keep the operator from being ready."""
        return self._at_first is not None and not self._at_first

    def stuck_for(self) -> float:
        """Seconds that the longest run has taken, or that keys have waited while no run began; grows without end if
        stuck.

        How long one key has waited says nothing: a tenant that requests too much waits for its own work.
        """
        now = asyncio.get_running_loop().time()
        oldest = self._ready.oldest()
        times = [*self._running.values(), *([] if oldest is None else [max(oldest, self._last_start)])]
        return max((now - t for t in times), default=0.0)

    async def run(self) -> None:
        """Work until cancelled; then running keys are also cancelled."""
        self._at_first = self._ready.keys()
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                wait = self._move_due()
                while len(self._running) < self._concurrency and (ready := self._ready.pop(self._at_its_limit)):
                    key, _ = ready
                    self._running[key] = self._last_start = asyncio.get_running_loop().time()
                    tenant = self._tenant_of(key)
                    self._slots[tenant] += 1
                    self._recent[tenant] = self._last_start
                    self._recent.move_to_end(tenant)
                    group.create_task(self._run(key))
                try:
                    # In Python 3.11, `asyncio.wait_for` loses a cancellation that comes as it is done.
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    def _at_its_limit(self, tenant: Hashable) -> bool:
        since = asyncio.get_running_loop().time() - RECENT_SECONDS
        while self._recent and next(iter(self._recent.values())) < since:
            self._recent.popitem(last=False)
        alone, among_others = self._limits
        return self._slots[tenant] >= (alone if self._recent.keys() <= {tenant} else among_others)

    def _move_due(self) -> float | None:
        """Make due keys ready; returns the seconds until the next one is due."""
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
        self._due.pop(key, None)  # this run decides again when the next is due
        try:
            async with asyncio.timeout(self._run_limit):
                after = await self._process(key)
            self._failures.pop(key, None)
        except Exception as error:
            after = self._backoff(key, error)
        finally:
            del self._running[key]
            if self._at_first:
                self._at_first.discard(key)
            self._free_slot_of(self._tenant_of(key))
            self._wake.set()
        if key in self._again:
            self._again.discard(key)
            # A failing key is not run at once when requested: that would defeat the backoff.
            if key not in self._failures:
                self.request(key)
                return
        if after is not None:
            self.request(key, max(after, 0.001))

    def _free_slot_of(self, tenant: Hashable) -> None:
        self._slots[tenant] -= 1
        if not self._slots[tenant]:
            del self._slots[tenant]

    def _backoff(self, key: K, error: BaseException) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        wait: float = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (failures - 1))
        asked: float = getattr(error, "retry_after", None) or 0.0
        wait = max(wait * random.uniform(0.75, 1.25), asked)
        if self.on_failure:
            self.on_failure(key, error)
        else:
            log.warning("%s failed, again in %.1f s: %s", key, wait, error)
        return wait
