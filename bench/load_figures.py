"""Figures of `operator_load.py`, their bounds, and the tables that are printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import records
from active_jobs import Reporters
from rich.console import Console
from rich.table import Table

LARGEST = 2000
"""Jobs of a namespace."""
ACTIVE, FRACTION = 200, 0.1


@dataclass
class Load:
    """Measured at one number of jobs; times in seconds, memory in MiB."""

    jobs: int
    empty: float = 0
    """Memory without any job, after one has come and gone."""
    created: float = 0
    """From the creation of the first job until the last one has its status."""
    created_cpu: float = 0
    idle_cores: float = 0
    """While nothing happens, and most pods find no node."""
    restart: float = 0
    restart_cpu: float = 0
    restart_writes: Counter[str] = field(default_factory=Counter)
    restarted: float = 0
    """Memory after the restart."""
    cores: float = 0
    rss: float = 0
    peak: float = 0
    writes: float = 0
    """By job that runs, within `minutes`."""
    minutes: float = 0
    latencies: list[float] = field(default_factory=list)
    reporters: Reporters | None = None
    deletion: float = 0
    deleted: int = 0
    """Jobs of the largest namespace."""
    after: float = 0
    """Memory a minute after all of them were deleted."""

    @property
    def active(self) -> int:
        return min(ACTIVE, int(self.jobs * FRACTION))

    @property
    def namespaces(self) -> dict[str, int]:
        """How many jobs each has."""
        full, rest = divmod(self.jobs, LARGEST)
        sizes = [LARGEST] * full + ([rest] if rest else [])
        return {f"load-{number}": size for number, size in enumerate(sizes)}

    @property
    def kib_a_job(self) -> float:
        return (self.restarted - self.empty) * 1024 / self.jobs


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return sorted(values)[int(0.99 * (len(values) - 1))]


Row = tuple[str, str, str, bool]
"""What, measured, bound, held."""


def rows(load: Load) -> list[Row]:
    """The figures of one number of jobs, with their bounds."""
    assert load.reporters
    posts, late, writes = load.reporters.posts, p99(load.latencies), load.writes / load.minutes
    return [
        ("all jobs have their Job and status", f"{load.created:.0f} s", "", True),
        ("CPU for that", f"{load.created_cpu:.0f} s", "", True),
        ("ready after a restart", f"{load.restart:.1f} s", "<= 15 s", load.restart <= 15),
        ("CPU for that", f"{load.restart_cpu:.1f} s", "", True),
        ("writes after a restart", str(dict(load.restart_writes) or 0), "0", not load.restart_writes),
        ("cores while nothing happens", f"{load.idle_cores:.2f}", "<= 0.6", load.idle_cores <= 0.6),
        (f"cores with {load.active} jobs that report", f"{load.cores:.2f}", "<= 0.6", load.cores <= 0.6),
        ("reports accepted", f"{posts.accepted}", "> 0", posts.accepted > 0),
        ("reports refused", str(dict(Counter(posts.refused)) or 0), "0", not posts.refused),
        ("answer to a report, p99", f"{p99(posts.seconds) * 1000:.0f} ms", "", True),
        (
            "writes a minute and job that runs",
            f"{writes:.2f}",
            "<= 4",
            load.writes <= _at_most(load),
        ),
        ("event to status, p99", f"{late * 1000:.0f} ms", "<= 1000", late <= 1),
        ("memory", f"{load.rss:.0f} MiB", "<= 250", load.rss <= 250),
        ("peak memory", f"{load.peak:.0f} MiB", "", True),
        (f"deletion of a namespace of {load.deleted}", f"{load.deletion:.0f} s", "<= 300", load.deletion <= 300),
        (
            "memory a minute after all are deleted",
            f"{load.after:.0f} MiB",
            f"<= {_back(load):.0f}",
            load.after <= _back(load),
        ),
    ]


def _back(load: Load) -> float:
    return 1.2 * load.empty


def _at_most(load: Load) -> float:
    """Four a minute; the window may begin just before one and end just after one."""
    return 4 * load.minutes + 1


def record_rows(kept: records.Records) -> list[Row]:
    """The figures of finished jobs."""
    return [
        ("memory", f"{kept.rss:.0f} MiB", "", True),
        ("memory of a record", f"{kept.kib_each:.1f} KiB", "<= 10", kept.kib_each <= 10),
        ("ready after a restart", f"{kept.restart:.1f} s", "", True),
        ("writes after a restart", str(dict(kept.writes) or 0), "0", not kept.writes),
    ]


def show(title: str, found: list[Row]) -> bool:
    """Print figures; True if all bounds are held."""
    table = Table("figure", "measured", "bound", "held", title=title, title_justify="left")
    for name, value, bound, held in found:
        table.add_row(name, value, bound, "yes" if held else "NO")
    Console(width=110).print(table)
    return all(held for *_, held in found)


def curve(loads: list[Load]) -> None:
    """Print the cost of a job at each number of jobs."""
    columns = ("jobs", "creation, ms of CPU", "memory, KiB", "restart, ms of CPU", "idle, ms of CPU a minute")
    table = Table(*columns, title="Cost of a job", title_justify="left")
    for load in loads:
        each = (load.created_cpu * 1000, load.restart_cpu * 1000, load.idle_cores * 60_000)
        creation, restart, idle = (value / load.jobs for value in each)
        table.add_row(str(load.jobs), f"{creation:.1f}", f"{load.kib_a_job:.1f}", f"{restart:.1f}", f"{idle:.1f}")
    Console(width=110).print(table)
