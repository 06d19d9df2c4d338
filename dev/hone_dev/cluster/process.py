"""Long-running programs: started apart from us, found again by pid and start time, stopped for good."""

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hone_dev.tools.console import HoneDevError


@dataclass(frozen=True)
class Component:
    """One program of the cluster, its arguments, and how to see that it serves."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    config: tuple[Path, ...] = ()  # files read at start; a change restarts the program
    env: dict[str, str] = field(default_factory=dict)
    timeout: float = 900.0  # seconds until it must be ready; a guard: one that ends is noticed at once

    def fingerprint(self) -> str:
        """Changes when the program would start differently."""
        digest = hashlib.sha256(repr((self.argv, sorted(self.env.items()))).encode())
        for path in self.config:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


def started_at(pid: int) -> str | None:
    """The kernel's start time of a live process, or None: distinguishes a process from a later one with its pid.

    A killed process is a zombie as soon as its first thread is; its ports and files are held until the last one is.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, threads, start = fields[0], int(fields[17]), fields[19]
    return None if state == "Z" and threads <= 1 else start


def _running(argv: tuple[str, ...]) -> list[int]:
    """Pids of processes with exactly this command line."""
    wanted, found = "\0".join(argv).encode() + b"\0", []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and (folder / "cmdline").read_bytes() == wanted:
                found.append(int(folder.name))
    return found


class Supervisor:
    """Starts and stops components; pid files in `folder`/run, output in `folder`/logs.

    Components live on when we end; with `outlive_us=False` the kernel ends them with us,
    even when we are killed.
    """

    def __init__(self, folder: Path, outlive_us: bool = True):
        self.run, self.logs = folder / "run", folder / "logs"
        self._prefix = () if outlive_us else ("setpriv", "--pdeathsig", "TERM")

    def pid(self, name: str) -> int | None:
        """The pid of a component that is alive, else None."""
        try:
            pid, start, _ = (self.run / f"{name}.pid").read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if started_at(int(pid)) == start else None

    def names(self) -> list[str]:
        """Every component that was started and not stopped."""
        return sorted(path.stem for path in self.run.glob("*.pid"))

    def start(self, component: Component) -> None:
        """Make the component run with these arguments; one that does so already is left alone."""
        self.run.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        if self.pid(component.name):
            if (self.run / f"{component.name}.pid").read_text().split()[2] == component.fingerprint():
                return
            self.stop(component.name)
        for orphan in _running(component.argv):  # whoever started it was killed before it noted the pid
            end(orphan, patience=10.0)
        with (self.logs / f"{component.name}.log").open("ab") as log:
            process = subprocess.Popen(
                (*self._prefix, *component.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **component.env},
            )
        record = f"{process.pid} {started_at(process.pid) or 0} {component.fingerprint()}"
        (self.run / f"{component.name}.pid").write_text(record)

    def wait(self, component: Component) -> None:
        """Return when the component is ready. Raises HoneDevError if it ends or takes too long."""
        deadline = time.monotonic() + component.timeout
        while not component.ready():
            if not self.pid(component.name):
                raise self._failure(component, "ended")
            if time.monotonic() > deadline:
                raise self._failure(component, f"is not ready after {component.timeout:.0f} s")
            time.sleep(0.1)

    def _failure(self, component: Component, what: str) -> HoneDevError:
        log = self.logs / f"{component.name}.log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        return HoneDevError(f"{component.name} {what}:\n{tail}", f"its log is {log}")

    def stop(self, name: str, patience: float = 10.0) -> None:
        """End a component, by force after `patience` seconds; forget it."""
        pid = self.pid(name)
        if pid:
            end(pid, patience)
        (self.run / f"{name}.pid").unlink(missing_ok=True)


def answers(port: int) -> bool:
    """Whether a program listens on this port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def end(pid: int, patience: float) -> None:
    """Terminate a process and wait until it is gone, by force after `patience` seconds."""
    start = started_at(pid)
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 30.0)):
        deadline = time.monotonic() + wait
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):  # not ours: somebody else reaps it
                os.waitpid(pid, os.WNOHANG)
            if start is None or started_at(pid) != start:
                return
            time.sleep(0.02)
