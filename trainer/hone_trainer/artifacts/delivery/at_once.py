"""Several files at the same time: one core hashes a file while another, or the network, is busy with the next."""

from __future__ import annotations

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
    failed: list[BaseException] = []

    def check() -> None:
        if failed:
            raise _EndedError

    def run(item: Item) -> Result:
        check()
        try:
            return work(item, check)
        except BaseException as error:
            failed.append(error)
            raise

    with ThreadPoolExecutor(AT_ONCE) as pool:
        calls = [pool.submit(run, item) for item in items]
        try:
            wait(calls, return_when=FIRST_EXCEPTION)
        except BaseException as error:  # a signal
            failed.append(error)
            raise
    if failed:
        raise failed[0]
    return [call.result() for call in calls]
