"""Several files at the same time: one core hashes a file while another, or the network, is busy with the next."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import suppress
from typing import TypeVar

AT_ONCE = 4
"""Files; docker and oras send as many or one more."""
_PATIENCE_SECONDS = 5.0
"""For calls to end after an error: less than a pod has after SIGTERM."""
Item = TypeVar("Item")
Result = TypeVar("Result")
Check = Callable[[], None]
"""Called between two pieces of a file; it ends the call when another file has failed."""


class _EndedError(Exception):
    """Another file has failed."""


def each(work: Callable[[Item, Check], Result], items: Sequence[Item]) -> list[Result]:
    """The results of `work` for all items, in their order.

    Raises:
        BaseException: the first of a call, or of a signal. Calls that have not begun are dropped, the others end at
            their next check; one that waits for a silent server is left behind, and ends with the process.
    """
    waiting: queue.SimpleQueue[tuple[Future[Result], Item]] = queue.SimpleQueue()
    calls: list[Future[Result]] = [Future() for _ in items]
    failed: list[BaseException] = []
    for entry in zip(calls, items, strict=True):
        waiting.put(entry)

    def check() -> None:
        if failed:
            raise _EndedError

    def run() -> None:
        with suppress(queue.Empty, _EndedError):
            while not failed:
                call, item = waiting.get_nowait()
                try:
                    call.set_result(work(item, check))
                except BaseException as error:
                    failed.append(error)
                    call.set_exception(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in items[:AT_ONCE]]
    for thread in threads:
        thread.start()
    try:
        wait(calls, return_when=FIRST_EXCEPTION)
    except BaseException as error:  # of a signal
        failed.append(error)
    if failed:
        _leave(threads)
        raise failed[0]
    return [call.result() for call in calls]


def _leave(threads: Sequence[threading.Thread]) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
