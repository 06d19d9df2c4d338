"""Progress of a copy whose size is known: lines for people as of any task, and reports to the operator."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from hone_api.contract.report import BYTES_PER_SECOND, DELIVERING
from hone_trainer.reporting import live
from hone_trainer.reporting.task import TaskProgress

REPORT_SECONDS = 10.0
"""Seconds between two reports: each may cost a write of a status."""
WINDOW_SECONDS = 30.0
"""The rate is the mean of so many seconds. What was there already arrives at once, and is soon forgotten."""
_SAMPLE_SECONDS = 1.0


class TransferProgress(TaskProgress):
    """Counts the bytes that arrived of `total`; use it as a context manager."""

    def __init__(self, title: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(title)
        self._total, self._arrived, self._clock = total, 0, clock
        self._samples = deque([(clock(), 0)])
        self._operator: live.Operator | None = None

    def __enter__(self) -> Self:
        self._operator = live.operator_from_environment(REPORT_SECONDS, self.log)
        self._report()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._note(self._clock())
        if self._operator:
            self._operator.close()
        super().__exit__(kind, error, traceback)

    def add_bytes(self, count: int) -> None:
        """Count bytes that were sent, or were there already; several threads may do so."""
        super().add_bytes(count)
        with self._lock:
            self._arrived += count
            now = self._clock()
            if now - self._samples[-1][0] >= _SAMPLE_SECONDS:
                self._note(now)

    def _note(self, now: float) -> None:
        self._samples.append((now, self._arrived))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()
        self._report()

    @property
    def rate(self) -> float | None:
        """Bytes a second of late; None: nothing was counted yet."""
        (begin, before), (end, after) = self._samples[0], self._samples[-1]
        return (after - before) / (end - begin) if end > begin else None

    def progress(self) -> live.Progress:
        """What is reported: steps are bytes. Of a tar, some bytes are not the files', so there can be more than all."""
        arrived, rate = min(self._arrived, self._total), self.rate
        return live.Progress(
            stage=DELIVERING,
            step=arrived,
            total_steps=self._total,
            eta_seconds=round((self._total - arrived) / rate) if rate else None,
            metrics={BYTES_PER_SECOND: rate} if rate else {},
        )

    def _report(self) -> None:
        if self._operator:
            self._operator.report(self.progress())
