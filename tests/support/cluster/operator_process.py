"""The operator as a process, for the tests."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests
from support.cluster.kube import GUARD_SECONDS

from hone_dev.cluster.objectstore import free_port

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["hone_operator.__main__"])
"""A process that has the imports done, 2 s of processor time each, and forks operators."""


class Fork:
    """A process of an operator whose imports are done; to be used as a Popen."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        self._process = FORKS.Process(target=_operate, args=(dict(env), str(log)), daemon=True)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; fails if it does not end in this time."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "the operator does not end"
        return self._process.exitcode


def _operate(env: dict[str, str], log: str) -> None:
    """In the fork: what `python -m hone_operator` does."""
    from kubernetes.aio.config import kube_config

    import hone_operator.__main__ as operator

    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)
    os.environ.clear()
    os.environ.update(env)
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = env["KUBECONFIG"]  # it was read when the module was imported
    operator.main()


@dataclass
class Operator:
    """The operator as a process.

    Attributes:
        forked: whether it is a fork of a process that has the imports done.
    """

    kubeconfig: Path
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    forked: bool = False
    process: subprocess.Popen[bytes] | Fork | None = None
    probes: int = 0

    def start(self) -> Operator:
        ports = free_ports(2)
        self.probes = ports[1]
        env = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "HONE_NAMESPACE": "hone-system",
            "HONE_TRAINER__IMAGE": "example.org/hone/trainer:test",
            "HONE_LOG__FORMAT": "text",
            "HONE_PORTS__METRICS": str(ports[0]),
            "HONE_PORTS__PROBES": str(ports[1]),
            **self.env,
        }
        log = self.folder / "operator.log"
        if self.forked:
            self.process = Fork(env, log)
            return self
        with log.open("ab") as out:
            self.process = subprocess.Popen([sys.executable, "-m", "hone_operator"], env=env, stdout=out, stderr=out)
        return self

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ready(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.probes}/readyz", timeout=5).ok
        except requests.ConnectionError as error:
            if not self.alive():
                raise AssertionError(f"the operator ended:\n{self.log()}") from error
            return False
        except requests.Timeout:  # it has no processor for the moment
            return False

    def peak_memory(self) -> int:
        """The most that it had in memory so far, bytes."""
        assert self.process
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return self.process.wait(GUARD_SECONDS)

    def log(self) -> str:
        return (self.folder / "operator.log").read_text()[-6000:]


def free_ports(count: int) -> list[int]:
    """Different ones."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port("127.0.0.1"))
    return list(ports)
