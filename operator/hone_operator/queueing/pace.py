"""Work whose cost grows with a namespace runs less often the longer it takes."""

from collections.abc import Hashable

PAUSE = 20.0
"""Pause after a run, as a multiple of its duration: a run takes at most a twentieth of the time."""
LONGEST_PAUSE = 60.0
MANY = 10_000


class Pace:
    """When the next run of each key may begin. Times are in seconds, of an adjustable clock."""

    def __init__(self) -> None:
        self._not_before: dict[Hashable, float] = {}

    def left(self, key: Hashable, now: float) -> float:
        """Seconds until the next run may begin; 0 means now."""
        left = self._not_before.get(key, now) - now
        return left if 0 < left <= LONGEST_PAUSE else 0.0

    def ran(self, key: Hashable, began: float, ended: float) -> None:
        """Record that a run has ended."""
        if len(self._not_before) >= MANY:
            self._not_before = {k: at for k, at in self._not_before.items() if at > ended}
        self._not_before[key] = ended + min(LONGEST_PAUSE, PAUSE * (ended - began))
