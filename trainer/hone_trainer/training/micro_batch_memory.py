"""How much memory a forward and backward pass takes, by its rows, and how many rows fit."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hone_api.blocks.training import MAX_MICRO_BATCH
from hone_api.estimate.micro_batch import FILLED
from hone_api.plan import TrainingPlan

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def candidates(rows: int) -> list[int]:
    """Sizes of a micro batch that divide a rank's `rows` equally, smallest first."""
    return [size for size in range(1, min(rows, MAX_MICRO_BATCH) + 1) if rows % size == 0]


@dataclass
class Measured:
    """Peak bytes by rows of a pass. Pure."""

    limit: int
    """Bytes that a pass may need."""
    idle: int = 0
    """Bytes between steps."""
    peaks: dict[int, int] = field(default_factory=dict)
    """Of passes that ended, smallest first."""

    def fits(self, rows: int) -> bool:
        """Whether a pass that was measured stays within the limit."""
        return self.peaks[rows] <= self.limit

    def is_expected_to_fit(self, rows: int) -> bool:
        """Whether a larger pass will, on the line through the two largest measured ones (0 rows: idle)."""
        (less, low), (more, high) = [(0, self.idle), *self.peaks.items()][-2:]
        return high + max(0, high - low) * (rows - more) / (more - less) <= self.limit

    @property
    def largest(self) -> int:
        """The most rows that fit; 0 if not even one does."""
        return max((rows for rows in self.peaks if self.fits(rows)), default=0)


@dataclass(frozen=True)
class Gauge:
    """The memory of this process: of its GPU, or resident."""

    cuda: bool

    def limit(self, plan: TrainingPlan) -> int:
        """Bytes that a pass may need. To be called before the model is loaded."""
        if self.cuda:
            import torch

            return int(FILLED * torch.cuda.mem_get_info()[0])
        # The rank that waits for this process stays in the memory of the same pod.
        memory = plan.memory or _container() // plan.processes_per_node
        return int(FILLED * memory) - _status("VmRSS", os.getppid())

    def now(self) -> int:
        """Bytes in use."""
        if self.cuda:
            import torch

            return int(torch.cuda.memory_reserved())
        return _status("VmRSS")

    def restart(self) -> None:
        """Forget the peak so far."""
        if self.cuda:
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return
        with suppress(OSError):  # a sandboxed container: the peak of all passes so far is an upper bound
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM

    def peak(self) -> int:
        """Most bytes in use since `restart`."""
        if self.cuda:
            import torch

            return int(torch.cuda.max_memory_reserved())
        return _status("VmHWM") or _status("VmRSS")  # a sandbox may have no peak


def _status(name: str, process: int | str = "self") -> int:
    """Bytes of an entry of /proc/<process>/status; 0 without it."""
    entry = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.M)
    return int(entry[1]) * 1024 if entry else 0


def _container() -> int:
    """Bytes of the container, or of the machine where it has no limit."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):
        return machine
