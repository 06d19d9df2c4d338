"""The operator as a process that is measured, and waiting for what it does."""

from __future__ import annotations

import asyncio
import ctypes.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

OPERATOR_USER = "hone-operator"
TICKS = os.sysconf("SC_CLK_TCK")
DOCKERFILE = Path(__file__).resolve().parents[1] / "Dockerfile"


def allocator() -> dict[str, str]:
    """Variables by which the operator's image replaces Python's allocator; empty where the library is not installed."""
    if not ctypes.util.find_library("jemalloc"):
        print("memory is not as in the image: apt-get install libjemalloc2", file=sys.stderr)
        return {}
    return dict(re.findall(r"\b(LD_PRELOAD|PYTHONMALLOC|MALLOC_CONF)=(\S+)", DOCKERFILE.read_text()))


class Operator:
    """The operator's process, with its own user towards the API server."""

    def __init__(self, kubeconfig: Path, folder: Path):
        self.log = (folder / "operator.log").open("ab")
        ports = free_ports(3)
        self.probe = ports[1]
        settings = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "HONE_NAMESPACE": "hone-system",
            "HONE_TRAINER__IMAGE": "example.org/hone/trainer:bench",
            "HONE_PORTS__METRICS": str(ports[0]),
            "HONE_PORTS__PROBES": str(ports[1]),
            "HONE_PROGRESS__PORT": str(ports[2]),
            **allocator(),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hone_operator"], env=settings, stdout=self.log, stderr=self.log, cwd=folder
        )

    def cpu(self) -> float:
        """User and system CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_rss(self) -> float:
        """Peak resident memory so far, MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


@asynccontextmanager
async def operating(kubeconfig: Path, folder: Path) -> AsyncIterator[Operator]:
    """An operator that is ready, until the end of the block."""
    operator = Operator(kubeconfig, folder)
    try:
        await wait_ready(operator)
        yield operator
    finally:
        operator.stop()


async def until(what: str, check: Any, every: float = 0.2, guard: float = 900) -> float:
    """Seconds until `await check()` is true; `guard` only keeps a hung run from waiting for ever."""
    start = time.monotonic()
    while not await check():
        if time.monotonic() - start > guard:
            raise RuntimeError(f"gave up waiting for {what}")
        await asyncio.sleep(every)
    return time.monotonic() - start


async def wait_ready(operator: Operator) -> None:
    """Wait for /readyz: all kinds listed, and the queue empty once."""

    async def ready() -> bool:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{operator.probe}/readyz") as a,
            ):
                return a.status == 200
        except aiohttp.ClientError:
            if operator.process.poll() is not None:
                raise RuntimeError("the operator ended; see operator.log") from None
            return False

    await until("the operator", ready, every=0.05)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
