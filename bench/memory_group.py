"""Groups of processes whose memory the kernel limits as that of a pod."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    def root(self) -> Path:
        """The group of all processes, which is that of its own for those in a container."""
        return self.folder.parent

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
