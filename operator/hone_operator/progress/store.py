"""Keeps the newest report of each job, and passes one on at most once per status interval: it costs a write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from hone_api.contract.report import ProgressReport
from hone_operator.progress.numbers import UNKNOWN, Latest, Origin, update

Key = tuple[str, str]
"""(namespace, name) of a FineTuneJob."""


@dataclass
class _Nudge:
    """When a job's queue key was last added, with which report, and the timer that adds it again."""

    last: float
    report: Latest
    timer: asyncio.TimerHandle | None = None


class ProgressStore:
    """Bounded: one entry for each job that reports, dropped with the job.

    `changed(key)` is called in the event loop: at once for a job's first report, then at most once in `interval`
    seconds, and always after the last report.
    """

    def __init__(self, changed: Callable[[Key], None], interval: float):
        self._changed = changed
        self._interval = interval
        self._latest: dict[str, Latest] = {}
        self._nudges: dict[str, _Nudge] = {}

    def latest(self, job_uid: str) -> Latest | None:
        """The newest report of the job's newest reporting attempt; None if nothing was reported since the start."""
        return self._latest.get(job_uid)

    def due(self, job_uid: str) -> Latest | None:
        """The report for the status: the newest one of the last call of `changed`. A decision for another reason, in
        between, writes no newer one."""
        nudge = self._nudges.get(job_uid)
        return nudge.report if nudge else self._latest.get(job_uid)

    def accept(
        self,
        job_uid: str,
        key: Key | None,
        attempt: int,
        report: ProgressReport,
        remembered: Latest | None = None,
        origin: Origin = UNKNOWN,
    ) -> bool:
        """Take a report; False if it is older than the one held here, or else older than `remembered`.

        Args:
            key: None: no reconcile is requested; `due` changes once an interval all the same.
        """
        latest = update(report, attempt, self._latest.get(job_uid, remembered), datetime.now(UTC), origin)
        if latest is None:
            return False
        self._latest[job_uid] = latest
        self._nudge(job_uid, key)
        return True

    def drop(self, job_uid: str) -> None:
        """Forget a job that was deleted."""
        self._latest.pop(job_uid, None)
        nudge = self._nudges.pop(job_uid, None)
        if nudge and nudge.timer:
            nudge.timer.cancel()

    def __len__(self) -> int:
        return len(self._latest)

    def _nudge(self, job_uid: str, key: Key | None) -> None:
        loop = asyncio.get_running_loop()
        nudge = self._nudges.get(job_uid)
        if nudge is None or loop.time() - nudge.last >= self._interval:
            self._nudges[job_uid] = _Nudge(loop.time(), self._latest[job_uid])
            if nudge and nudge.timer:
                nudge.timer.cancel()
            if key:
                self._changed(key)
        elif nudge.timer is None:
            nudge.timer = loop.call_at(nudge.last + self._interval, self._late, job_uid, key)

    def _late(self, job_uid: str, key: Key | None) -> None:
        self._nudges[job_uid] = _Nudge(asyncio.get_running_loop().time(), self._latest[job_uid])
        if key:
            self._changed(key)
