"""All cores of several pods: a pool like that of `concurrent.futures`, by Dask's scheduler and workers.

The leading pod runs the program, the scheduler, and workers on its own cores. The other pods only run workers, which
join when they start and leave when the scheduler ends. A task whose worker is killed runs again on another one. What
workers need is sent once to each of them; they read nothing else.

Dask's connections have no password, like those of the ranks of a run: in a cluster, a NetworkPolicy lets only pods of
the same Dataset reach each other.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from hone_api.plan import WorkerPods

log = logging.getLogger("hone.pods")
KILLS = 3
"""Workers that one task may end before it counts as the cause."""
PAUSE_SECONDS = 2.0
"""Between two attempts to reach the scheduler."""


class Awaited:
    """A result as a Future of `concurrent.futures`."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def result(self) -> Any:
        """The result.

        Raises:
            BrokenProcessPool: the task ended each worker that it ran on. What the task raised.
        """
        from distributed import KilledWorker

        try:
            return self._future.result()
        except KilledWorker as error:
            raise BrokenProcessPool(str(error)) from None


class PodPool:
    """In the leading pod: like a ProcessPoolExecutor, over the cores of all pods.

    Args:
        cores: workers of this pod.
        initializer: called with `initargs` in each worker before its first task, also in those that join later.
    """

    def __init__(self, pods: WorkerPods, cores: int, initializer: Callable[..., None], initargs: Sequence[Any]) -> None:
        from distributed import Client, Nanny, Scheduler, SpecCluster, WorkerPlugin
        from distributed.protocol import pickle

        class Begin(WorkerPlugin):
            """Local, so that it is sent by value."""

            def setup(self, worker: Any) -> None:
                initializer(*initargs)

        by_value: Callable[[Any], bytes] = pickle.dumps
        begin = by_value(Begin())

        class Beginning(Scheduler):
            """Has the plugin from the start, so that each worker sets it up as it joins.

            `Client.register_plugin` asks those that have joined, and fails when one of them ends meanwhile.
            """

            worker_plugins: dict[str, bytes]

            def __init__(self, **options: Any) -> None:
                super().__init__(**options)
                self.worker_plugins["begin"] = begin

        _set_up()
        listen = {"host": "127.0.0.1" if _is_loopback(pods.host) else "", "port": pods.port, "dashboard": False}
        workers = {number: {"cls": Nanny, "options": _worker()} for number in range(cores)}
        scheduler = {"cls": Beginning, "options": listen}
        self._cluster = SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.ERROR)
        self._client = Client(self._cluster)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Awaited:
        """As `Executor.submit`."""
        return Awaited(self._client.submit(function, *arguments, pure=False))

    def shutdown(self, cancel_futures: bool = False) -> None:
        """End all workers, also those of the other pods."""
        self._client.close()
        self._cluster.close()


def work(pods: WorkerPods, cores: int) -> None:
    """In another pod: work for the leading pod until its scheduler ends."""
    while True:
        while not _is_reachable(pods):
            time.sleep(PAUSE_SECONDS)
        if asyncio.run(_work(pods, cores)):
            return
        log.info("%s ended while this pod joined it: waiting for its next attempt", pods.host)


async def _work(pods: WorkerPods, cores: int) -> bool:
    """Whether this pod joined the scheduler, which ends whenever the leading pod does."""
    from distributed import Nanny
    from distributed.comm.core import CommClosedError

    _set_up()
    address = f"tcp://{pods.host}:{pods.port}"
    nannies = [Nanny(address, death_timeout="60s", **_worker()) for _ in range(cores)]
    try:
        await asyncio.gather(*nannies)
    except (CommClosedError, RuntimeError) as error:  # a RuntimeError says only that a start failed
        if not isinstance(error.__cause__ or error, CommClosedError):
            raise
        await _close(nannies)
        return False
    log.info("%d processes: this pod works for %s", cores, pods.host)
    ended = [asyncio.ensure_future(nanny.finished()) for nanny in nannies]
    while not all(task.done() for task in ended) and await asyncio.to_thread(_is_reachable, pods):
        await asyncio.wait(ended, timeout=PAUSE_SECONDS)
    await _close(nannies)
    return True


async def _close(nannies: Sequence[Any]) -> None:
    """End their processes. They say so to a scheduler that may have ended."""
    await asyncio.gather(*(nanny.close(timeout=PAUSE_SECONDS) for nanny in nannies), return_exceptions=True)


def _is_reachable(pods: WorkerPods) -> bool:
    try:
        socket.create_connection((pods.host, pods.port), timeout=PAUSE_SECONDS).close()
    except OSError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host.startswith("127.")


def _worker() -> dict[str, Any]:
    """Options of a worker: the kernel alone bounds its memory, since nothing that it has could be written to disk."""
    folder = tempfile.mkdtemp(prefix="workers-")
    return {"nthreads": 1, "memory_limit": 0, "local_directory": folder, "silence_logs": logging.ERROR}


def _set_up() -> None:
    import dask

    dask.config.set(
        {
            "distributed.scheduler.allowed-failures": KILLS,
            # No pages and numbers over HTTP: each of them would listen on a port.
            "distributed.scheduler.http.routes": [],
            "distributed.worker.http.routes": [],
            # Neither samples of the stack, every 10 ms, nor of the machine's load, twice a second.
            "distributed.worker.profile.enabled": False,
            "distributed.admin.system-monitor.interval": "10s",
            "distributed.comm.timeouts.connect": "60s",
        }
    )
