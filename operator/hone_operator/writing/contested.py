"""Statuses that another writer changes back: an operator of another version, or a tool that restores what it had.

Neither of two such writers would ever rest. So a status that somebody else has changed since our last write, and that
we would change to what it said then, is written less and less often.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FREE = 3
"""How often a status is set right at once."""
LONGEST_PAUSE = 300.0
CALM = 2 * LONGEST_PAUSE
"""Seconds without a change back after which nothing is remembered."""


@dataclass
class _Written:
    words: int
    at: float
    changed_back: int = 0


class Contested:
    """When a status may be written again. Times are in seconds, of a clock that only goes forward."""

    def __init__(self) -> None:
        self._written: dict[str, _Written] = {}
        self._many = 1000

    def pause(self, body: Mapping[str, Any], status: Mapping[str, Any], now: float) -> float:
        """Seconds for which the status must not be written, or 0: then it counts as written now.

        Args:
            body: the object as it is, with the status that `status` would replace.
        """
        uid, wanted = body["metadata"]["uid"], _words(status)
        last = self._written.get(uid)
        if last is None or now - last.at > CALM or last.words != wanted:
            self._forget(now)
            changed_back = 0
        elif _words(body.get("status") or {}) == last.words:  # news within the same words
            changed_back = last.changed_back
        else:
            changed_back = last.changed_back + 1
        if last is not None and changed_back > FREE:
            left = last.at + min(LONGEST_PAUSE, 2.0 ** (changed_back - FREE)) - now
            if left > 0:
                return left
        self._written[uid] = _Written(wanted, now, changed_back)
        return 0.0

    def gone(self, uid: str) -> None:
        """An object was deleted."""
        self._written.pop(uid, None)

    def _forget(self, now: float) -> None:
        if len(self._written) > self._many:
            self._written = {uid: one for uid, one in self._written.items() if now - one.at <= CALM}
            self._many = max(1000, 2 * len(self._written))


def _words(status: Mapping[str, Any]) -> int:
    """Of what two writers would disagree about: not of numbers or times, which change by themselves."""
    conditions = sorted(f"{c.get('type')} {c.get('status')} {c.get('reason')}" for c in status.get("conditions") or ())
    return hash((status.get("phase"), *conditions))
