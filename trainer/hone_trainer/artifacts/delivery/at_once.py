"""Several files at the same time: one core hashes a file while another, or the network, is busy with the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

AT_ONCE = 4
"""Files; docker and oras send as many or one more."""
Item = TypeVar("Item")
Result = TypeVar("Result")
Check = Callable[[], None]
"""Called between two pieces of a file; it ends the call when another file has failed."""


class _EndedError(Exception):
    """Another file has failed."""


def each(work: Callable[[Item, Check], Result], items: Sequence[Item]) -> list[Result]:
    """The results of `work` for all items, in their order.

    Raises:
        BaseException: the first of a call. Calls that have not begun are dropped, the others end at their next check.
    """
    ended = threading.Event()

    def check() -> None:
        if ended.is_set():
            raise _EndedError

    with ThreadPoolExecutor(AT_ONCE) as pool:
        calls = [pool.submit(work, item, check) for item in items]
        try:
            done, _ = wait(calls, return_when=FIRST_EXCEPTION)
            for call in done:
                call.result()
        except BaseException:
            ended.set()
            pool.shutdown(cancel_futures=True)
            raise
        return [call.result() for call in calls]
