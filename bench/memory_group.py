"""Groups of processes: the kernel limits their memory as that of a pod, or counts what all of them use."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_NAMES = {
    True: ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    False: ("memory.max", "memory.peak", "memory.events"),
}
"""Limit, peak and events, by whether it is the first version of control groups."""


@dataclass(frozen=True)
class Group:
    """A control group of the kernel."""

    folder: Path
    is_first_version: bool

    @property
    def join(self) -> Callable[[], None]:
        """Called in a process, it and its children belong to the group."""
        return lambda: (self.folder / "cgroup.procs").write_text(str(os.getpid())) and None

    @property
    def peak(self) -> float:
        """The most MiB that the group had, pages of files included."""
        return int((self.folder / _NAMES[self.is_first_version][1]).read_text()) / 2**20

    @property
    def killed(self) -> int:
        """Processes that the kernel killed because of the limit."""
        lines = (self.folder / _NAMES[self.is_first_version][2]).read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])


@dataclass
class Usage:
    """What all processes of a group used."""

    cpu: float = 0
    """Seconds of CPU time, those of the kernel included."""
    peak: float = 0
    """The most MiB of memory at one moment: anonymous and shared, without pages of files. Seen each 0.1 s."""


@dataclass(frozen=True)
class CountedGroup:
    """Control groups for one command and all that it starts: by inheritance, so a daemon counts as well."""

    cpu: Path
    memory: Path

    @property
    def join(self) -> Callable[[], None]:
        """Called in a process, it and its children belong to the group."""
        folders = {self.cpu, self.memory}
        return lambda: [(each / "cgroup.procs").write_text(str(os.getpid())) for each in folders] and None

    def seconds(self) -> float:
        """CPU time of the group until now (cpuacct.usage is in ns, cpu.stat's usage_usec in us)."""
        first = self.cpu / "cpuacct.usage"
        if first.exists():
            return int(first.read_text()) / 1e9
        return int(_numbers(self.cpu / "cpu.stat")["usage_usec"]) / 1e6

    def mib(self) -> float:
        """Memory of the group at this moment."""
        keys = ("anon", "shmem") if self.cpu == self.memory else ("total_rss", "total_shmem")
        numbers = _numbers(self.memory / "memory.stat")
        return sum(numbers.get(key, 0) for key in keys) / 2**20


@contextmanager
def counted() -> Iterator[tuple[CountedGroup, Usage]]:
    """A new group, and what its processes used, filled in at the end; whatever still runs in it is killed then.

    Raises:
        OSError: the user may not make groups: be root.
    """
    is_first, name, usage, ended = (ROOT / "cpuacct").is_dir(), f"hone-bench-{os.getpid()}", Usage(), threading.Event()
    group = CountedGroup(*(ROOT / each / name if is_first else ROOT / name for each in ("cpuacct", "memory")))
    folders = {group.cpu, group.memory}

    def watch() -> None:
        while not ended.wait(0.1):
            usage.peak = max(usage.peak, group.mib())

    for folder in folders:
        folder.mkdir()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield group, usage
    finally:
        ended.set()
        watcher.join()
        usage.cpu = group.seconds()
        for folder in folders:
            while pids := (folder / "cgroup.procs").read_text().split():
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                time.sleep(0.1)
            folder.rmdir()


def _numbers(file: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    return {name: int(number) for name, number in map(str.split, file.read_text().splitlines())}


@contextmanager
def limited(mib: float) -> Iterator[Group]:
    """A new group with a limit; it goes when its processes have ended.

    Raises:
        OSError: the user may not make groups: be root.
    """
    is_first = (ROOT / "memory").is_dir()
    group = Group((ROOT / "memory" if is_first else ROOT) / f"hone-bench-{os.getpid()}", is_first)
    group.folder.mkdir()
    try:
        (group.folder / _NAMES[is_first][0]).write_text(str(int(mib * 2**20)))
        yield group
    finally:
        while (group.folder / "cgroup.procs").read_text():
            time.sleep(0.1)
        group.folder.rmdir()
