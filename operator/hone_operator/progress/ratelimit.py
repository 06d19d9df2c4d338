"""A token bucket for each key."""

from __future__ import annotations

from collections import OrderedDict

MAX_BUCKETS = 8192


class RateLimit:
    """At most `burst` requests at once and `rate` a second for each key; the least recent keys are forgotten."""

    def __init__(self, rate: float, burst: float):
        self.rate = rate
        self.burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, key: str, now: float) -> bool:
        """Whether a request at `now` (seconds, monotonic) is within the limit."""
        level, since = self._buckets.pop(key, (self.burst, now))
        level = min(self.burst, level + (now - since) * self.rate)
        allowed = level >= 1
        self._buckets[key] = (level - 1 if allowed else level, now)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return allowed
