"""Runs independent parts of the work in parallel. Each part takes minutes."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from hone_dev.tools import console

REFRESH, REMIND = 1.0, 60.0
"""Seconds between updates of the spinner, and between lines if there is no terminal."""


@dataclass(frozen=True)
class Part:
    """Something to build. A thread is enough, because it waits for programs and not for Python."""

    title: str
    make: Callable[[], object]


def run(parts: Sequence[Part]) -> None:
    """Build all parts in parallel and show which ones are still running; return when the last one has ended.

    If a part fails, its error is shown at once and raised after the others have ended, so that their results are kept.
    """
    with ThreadPoolExecutor(max(1, len(parts))) as pool, console.waiting() as show:
        started, reminded = time.monotonic(), time.monotonic()
        pending: dict[Future[object], str] = {pool.submit(_make, part): part.title for part in parts}
        failed: Future[object] | None = None
        while pending:
            done, _ = wait(pending, timeout=REFRESH, return_when=FIRST_COMPLETED)
            for future in done:
                title = pending.pop(future)
                if future.exception() and failed is None:
                    failed = future
                    console.note(f"{title}: {future.exception()}")
            now = time.monotonic()
            reminder = now - reminded >= REMIND
            if pending:
                show(waiting_for(list(pending.values()), now - started), reminder)
            reminded = now if reminder else reminded
    if failed:
        failed.result()


def _make(part: Part) -> object:
    threading.current_thread().name = part.title
    return part.make()


def waiting_for(titles: Sequence[str], seconds: float) -> str:
    """E.g. `waiting for Kubernetes and the images (3m 20s so far)`."""
    *others, last = titles
    names = f"{', '.join(others)} and {last}" if others else last
    minutes, rest = divmod(int(seconds), 60)
    return f"waiting for {names} ({f'{minutes}m ' if minutes else ''}{rest}s so far)"
