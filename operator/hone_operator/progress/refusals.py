"""Counts what the progress port refused; logs at most one line per interval, whatever callers send.

Callers' input never reaches the log, because an over-long header contains a token.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator

from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

LINE_SECONDS = 60.0
MAX_PLACES = 1024
METRIC = "hone_operator_progress_refused_total"
HELP = "Connections and reports that the progress port refused."
log = logging.getLogger(__name__)


class RefusalCounter(Collector):
    """Counts by kind and address, logs them in at most one line per `LINE_SECONDS`, and exports them on /metrics."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.total: Counter[str] = Counter()
        """Counts by kind, since the start."""
        self._clock = clock
        self._unlogged: Counter[tuple[str, str]] = Counter()
        self._next = clock()

    def add(self, kind: str, address: str) -> None:
        """Count one refusal."""
        self.total[kind] += 1
        place = (kind, address)
        if place not in self._unlogged and len(self._unlogged) >= MAX_PLACES:
            place = (kind, "further addresses")
        self._unlogged[place] += 1
        if self._clock() >= self._next:
            self.log_totals()

    def describe(self) -> Iterator[Metric]:
        """The metric without samples."""
        yield CounterMetricFamily(METRIC, HELP, labels=["reason"])

    def collect(self) -> Iterator[Metric]:
        """The metric, by reason."""
        family = CounterMetricFamily(METRIC, HELP, labels=["reason"])
        for kind, count in list(self.total.items()):
            family.add_metric([kind], count)
        yield family

    def log_totals(self) -> None:
        """Log what has not been logged yet."""
        worst = ", ".join(
            f"{count} x {kind} from {address}" for (kind, address), count in self._unlogged.most_common(5)
        )
        more = f" and {len(self._unlogged) - 5} more" if len(self._unlogged) > 5 else ""
        log.warning("the progress port refused %d: %s%s", self._unlogged.total(), worst, more)
        self._unlogged.clear()
        self._next = self._clock() + LINE_SECONDS


class HttpLog(logging.Filter):
    """For aiohttp's logger: a request that is not HTTP is counted, not logged with a traceback and its text."""

    def __init__(self, refusals: RefusalCounter):
        super().__init__()
        self._refusals = refusals

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        let_go(error)
        address = record.args[0] if isinstance(record.args, tuple) and record.args else ""
        self._refusals.add("not HTTP", str(address))
        return False


def let_go(error: BaseException | None) -> None:
    """Drop the traceback, whose frames would keep the connection and its buffers until a full garbage collection."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
