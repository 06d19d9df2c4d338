"""All cores: functions that workers apply to one item after the other, with results in order.

Workers are forks of this process. What a function reads (a tokenizer, settings, patterns) is inherited and never sent;
only items and results are pickled.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.signals import die_with_parent

AHEAD = 2
"""Items that are given to each worker before the result of its first one is used."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Processors that this process may use: of its affinity, and of its container's quota. 1 on other systems than
    Linux, where a worker could not end with its parent."""
    if sys.platform != "linux":
        return 1
    mine = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(mine, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no cgroup v2, or no limit
        return mine


class Workers:
    """Processes that apply functions. They are forked together when the first item is given to them.

    Args:
        functions: those that `map` may be called with.
        count: processes; below 2, this process does the work itself, without a fork.
        doing: for the message when one is killed: 'encodes rows'.
    """

    are_elsewhere = False

    def __init__(self, functions: Sequence[Callable[..., Any]] = (), count: int = 1, doing: str = "works") -> None:
        self.count = max(1, count)
        self._functions, self._doing = list(functions), doing
        self._pool: ProcessPoolExecutor | None = None
        if self.count > 1:
            context = multiprocessing.get_context("fork")
            initial = (self._functions, os.getpid())
            self._pool = ProcessPoolExecutor(self.count, context, initializer=_begin, initargs=initial)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Each item with its result, in the order of the items; few are in memory at once.

        Processes begin with the first ones before a result is asked for.

        Raises:
            TrainerError: OutOfMemory, when a worker was killed. What a function raises, at the item's turn.
        """
        if self._pool is None:
            return ((item, function(item)) for item in items)
        with self._not_killed():
            self._pool.submit(int)  # they are forked now, also without an item: later this process may have threads
            futures = self._begun(self._pool, self._functions.index(function), iter(items))
            first = [*itertools.islice(futures, 1)]
        return self._results(itertools.chain(first, futures))

    def _begun(
        self, pool: ProcessPoolExecutor, number: int, items: Iterator[Item]
    ) -> Iterator[tuple[Item, Future[Any]]]:
        """Each item with its future; the next ones are given to the processes by then."""
        waiting: deque[tuple[Item, Future[Any]]] = deque()
        while True:
            while len(waiting) < AHEAD * self.count and (item := next(items, None)) is not None:
                waiting.append((item, pool.submit(_apply, number, item)))
            if not waiting:
                return
            yield waiting.popleft()

    def _results(self, futures: Iterable[tuple[Item, Future[Any]]]) -> Iterator[tuple[Item, Any]]:
        with self._not_killed():
            for item, future in futures:
                result = future.result()
                if isinstance(result, _Failed):
                    raise result.error()
                yield item, result

    @contextmanager
    def _not_killed(self) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool:
            message = f"a process that {self._doing} was killed (most often by the kernel, out of memory)"
            raise TrainerError(FailureCode.OUT_OF_MEMORY, message) from None


class _Failed(NamedTuple):
    """An error of ours, in parts: pickle would call its class with the message alone."""

    kind: type[TrainerError]
    args: tuple[Any, ...]
    state: dict[str, Any]

    def error(self) -> TrainerError:
        error = self.kind.__new__(self.kind, *self.args)
        error.__dict__.update(self.state)
        return error


_functions: Sequence[Callable[..., Any]]
"""Of a worker."""


def _begin(functions: Sequence[Callable[..., Any]], parent: int) -> None:
    """In a worker: the signals of the parent are the parent's, and the worker ends with it."""
    global _functions
    _functions = functions
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(parent)
    gc.freeze()  # a collection would look at all that was inherited, and so copy its pages: 0.2 s
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _apply(number: int, item: Any) -> Any:
    try:
        return _functions[number](item)
    except TrainerError as error:
        return _Failed(type(error), error.args, error.__dict__)
