"""The operator as a process, for the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import requests
from kube import GUARD_SECONDS

from hone_dev.objectstore import free_port


@dataclass
class Operator:
    """The operator as a process."""

    kubeconfig: Path
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
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
        with (self.folder / "operator.log").open("ab") as out:
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
