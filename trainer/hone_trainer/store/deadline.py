"""One time limit for several calls of a library that has no time limit."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

_THREADS = 8
Result = TypeVar("Result")


class LateError(Exception):
    """The time is up."""


@dataclass(frozen=True)
class Deadline:
    """A number of seconds, and the `time.monotonic` at which they are over."""

    seconds: float = math.inf
    until: float = math.inf

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """A deadline this many seconds from now."""
        return cls(seconds, time.monotonic() + seconds)

    def at_least(self, seconds: float) -> Deadline:
        """This deadline, or one this many seconds from now if that is later."""
        other = Deadline.after(seconds)
        return other if other.until > self.until else self

    @property
    def left(self) -> float | None:
        """Seconds left; None means no limit."""
        return None if math.isinf(self.until) else max(0.0, self.until - time.monotonic())

    def run(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run the calls in parallel and return their results in order.

        They run in daemon threads: a server that sends a byte now and then can block a read for ever. A late call is
        abandoned and does not keep the process from ending.

        Raises:
            LateError: not all calls finished in time.
            Exception: from a call that failed; calls that had not begun are dropped.
        """
        futures: list[Future[Result]] = [Future() for _ in calls]
        waiting: queue.SimpleQueue[tuple[Future[Result], Callable[[], Result]]] = queue.SimpleQueue()
        for entry in zip(futures, calls, strict=True):
            waiting.put(entry)
        stopped = threading.Event()

        def work() -> None:
            with suppress(queue.Empty):
                while not stopped.is_set():
                    _settle(*waiting.get_nowait())

        for _ in calls[:_THREADS]:
            threading.Thread(target=work, daemon=True).start()
        done, late = wait(futures, self.left, FIRST_EXCEPTION)
        stopped.set()
        for future in done:
            future.result()
        if late:
            raise LateError(f"it took longer than {self.seconds:.0f} s")
        return [future.result() for future in futures]


NO_END = Deadline()


def _settle(future: Future[Result], call: Callable[[], Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
