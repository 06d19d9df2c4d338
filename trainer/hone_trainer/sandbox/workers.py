"""A pool of worker processes. A worker that dies or does not answer is replaced; its request returns Broken."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from types import TracebackType
from typing import IO, Self

from hone_trainer.sandbox.messages import INSTRUCTIONS_PER_SECOND, Reply, WorkerRequest
from hone_trainer.sandbox.worker import LOAD

PATIENCE_SECONDS = 120.0
"""Seconds that a worker may take in addition to ten times its program's limit: a busy machine must not decide."""
CPU_SECONDS = 3.0
"""CPU time of a request that counts no instructions, in seconds."""
LOAD_SECONDS = 300.0
_KEPT_VARIABLES = ("HOME", "PATH", "LANG", "XDG_CACHE_HOME", "PYTHONPYCACHEPREFIX")
"""Of the environment. A worker cannot write bytecode: without what others wrote it compiles sympy at each start."""


class SandboxWorkers:
    """Workers that answer requests, several in parallel.

    Args:
        count: processes; default: one for each CPU of this process, at most 8.
        patience: seconds; see PATIENCE_SECONDS.
        cpu_seconds: see CPU_SECONDS.
    """

    def __init__(
        self, count: int | None = None, patience: float = PATIENCE_SECONDS, cpu_seconds: float = CPU_SECONDS
    ) -> None:
        self.count = count or min(8, len(os.sched_getaffinity(0)))
        self._patience, self._cpu_seconds = patience, cpu_seconds
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        for _ in range(self.count):
            self._idle.put(None)  # started when first needed
        self._threads = ThreadPoolExecutor(self.count, "sandbox")
        self._loaded: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, requests: Sequence[WorkerRequest]) -> list[Reply]:
        """A reply for each request, in order; never raises because of what a request does."""
        for kind in {request.kind for request in requests} - self._loaded:
            # One worker first: it compiles the interpreter, and the others find it in wasmtime's cache.
            reply = self._ask(WorkerRequest(LOAD, {"kind": kind}))
            if reply.outcome != "Done":
                return [reply] * len(requests)
            if reply.value and not self._loaded:
                print(f"the sandbox runs without {' and '.join(reply.value)}, which this kernel lacks", file=sys.stderr)
            self._loaded.add(kind)
        return list(self._threads.map(self._ask, requests))

    def close(self) -> None:
        """End all workers."""
        self._threads.shutdown(cancel_futures=True)
        for _ in range(self.count):
            worker = self._idle.get()
            if worker is not None:
                worker.end()

    def _ask(self, request: WorkerRequest) -> Reply:
        worker = self._idle.get()
        try:
            worker = worker or _Worker(self._cpu_seconds)
            reply = worker.ask(request, self._seconds(request))
        except OSError as error:
            reply = Reply("Broken", message=f"the sandbox cannot start: {error}")
        if reply is None and worker is not None:
            code, worker = worker.end(), None
            if code == -signal.SIGVTALRM:
                reply = Reply("Failed", message="it takes too long")
        self._idle.put(worker)
        return reply or Reply("Broken", message=f"the sandbox did not answer: exit code {code}")

    def _seconds(self, request: WorkerRequest) -> float:
        if request.kind == LOAD:
            return LOAD_SECONDS
        instructions: int = request.body.get("instructions", 0)
        return self._patience + 10 * instructions / INSTRUCTIONS_PER_SECOND


class _Worker:
    """One worker process."""

    def __init__(self, cpu_seconds: float) -> None:
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-m", "hone_trainer.sandbox.worker", str(cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
            cwd="/",
            text=True,
            encoding="utf-8",
        )

    def ask(self, request: WorkerRequest, seconds: float) -> Reply | None:
        """The reply, or None if the worker died or took longer than `seconds`; it has ended then."""
        watch = threading.Timer(seconds, self._process.kill)
        watch.start()
        try:
            print(json.dumps(asdict(request)), file=self._pipe(self._process.stdin), flush=True)
            line = self._pipe(self._process.stdout).readline()
        except OSError:
            line = ""
        finally:
            watch.cancel()
        return Reply(**json.loads(line)) if line.endswith("\n") else None

    def end(self) -> int:
        """Kill the process; returns its exit code, negative for the signal that ended it."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # a request that was never read
                self._pipe(pipe).close()
        return code

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe
