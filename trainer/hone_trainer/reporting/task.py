"""Progress for people: a live line on a terminal, otherwise a plain line at intervals."""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from hone_api.base.wording import counted

if TYPE_CHECKING:
    from rich.status import Status

_EVERY_SECONDS = 10
_logger = logging.getLogger("hone.trainer")


class RowsRead(Protocol):
    """Some rows."""

    @property
    def rows(self) -> int:
        """How many."""


class TaskProgress:
    """Counts bytes and rows of one task; use it as a context manager."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bytes = self._rows = self._parts = 0
        self._next = time.monotonic() + _EVERY_SECONDS
        self._live: Status | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def log(self, text: str) -> None:
        """Print a line that stays."""
        _logger.info("%s", text)

    def add_bytes(self, count: int) -> None:
        """Count bytes that were read; several threads may do so."""
        with self._lock:
            self._bytes += count
            self._show(f"{self._bytes / 2**20:.1f} MiB")

    def add_part(self, part: RowsRead, parts: int) -> None:
        """Count rows that were read: one part of so many."""
        self._rows += part.rows
        self._parts += 1
        self._show(f"{counted(self._rows, 'row')}, {self._parts:,} of {counted(parts, 'part')}")

    def _show(self, state: str) -> None:
        if self._live is None and sys.stderr.isatty():
            from rich.console import Console

            self._live = Console(stderr=True).status(self._title)
            self._live.start()
        if self._live:
            self._live.update(f"{self._title}: {state}")
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_SECONDS
            _logger.info("%s: %s", self._title, state)
