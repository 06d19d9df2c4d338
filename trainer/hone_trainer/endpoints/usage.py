"""Counts the tokens that a server reports as read and written, which providers charge for."""

from __future__ import annotations

import threading
from typing import Any

from hone_api.base.wording import counted

_MOST = 2**53 - 1


class Usage:
    """The sum over answers, including those that a filter drops; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.read = self.written = 0
        """Tokens."""
        self.unknown = 0
        """Answers without a count from the server."""

    def see(self, answer: dict[str, Any]) -> None:
        """Count a chat completion by its `usage`."""
        usage = answer.get("usage")
        counts = [_count(usage.get(name)) if isinstance(usage, dict) else None for name in _NAMES]
        with self._lock:
            if None in counts:
                self.unknown += 1
            else:
                self.read, self.written = (min(a + (b or 0), _MOST) for a, b in zip(self._sums, counts, strict=True))

    @property
    def _sums(self) -> tuple[int, int]:
        return self.read, self.written

    def __str__(self) -> str:
        """For the log; empty if nothing is known."""
        if not self.read + self.written:
            return ""
        rest = f", {counted(self.unknown, 'answer')} not counted by the server" if self.unknown else ""
        return f"{self.read:,} tokens read and {self.written:,} written{rest}"


_NAMES = ("prompt_tokens", "completion_tokens")


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST else None
