"""What thousands of FineTuneJobs cost the operator, against a real etcd, API server and controller manager.

    make setup && .venv/bin/python bench/operator_load.py --jobs 500 1000 2000 5000 [--minutes 5] [--records 20000]

For each number of jobs, in an API server of its own:

1. All jobs are created, in namespaces of at most 2,000. Each gets its Job and its pods. A hand plays scheduler and
   kubelet: the pods of 200 jobs (a tenth of the jobs, if that is less) run, on two nodes each; all other pods find no
   node.
2. The operator is started again. It has to be ready soon, and to write nothing.
3. Each job that runs reports its progress every 5 s, over TLS and a connection of its own. Meanwhile new jobs come, one
   at a time.
4. One namespace is deleted after the other; the largest one counts.

Then, in one more API server, records of finished jobs: as many FineTuneJobs with a ModelVersion each as `--records`
says, without Jobs and pods. One of them is real; the others are copies.

Pods never run. Figures are printed next to their bounds, and one line for each number of jobs with the cost of a job.
The exit code is 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import records
from active_jobs import Reporters, empty_tls_secret, set_pods
from kubeapi import HONE, KubeApi
from operator_scale import (
    OPERATOR_USER,
    Operator,
    _free_ports,
    first_status,
    install,
    job,
    prepare,
    until,
    wait_ready,
)
from rich.console import Console
from rich.table import Table

from hone_dev.controlplane import control_plane
from hone_dev.pki import Authority

LARGEST = 2000
"""Jobs of a namespace."""
ACTIVE, FRACTION = 200, 0.1
AUDIT_MIB = 4000
"""More than a run writes: a log that is renamed meanwhile would hide writes."""
CONTROLLER_QPS = 300
"""Otherwise the benchmark waits for the Job controller: 20 pods a second."""
GUARD_SECONDS = 3600.0
FIRST = "load-first"
SETTLE_SECONDS = 60.0
"""From the last deletion until the memory is read: the operator collects when nothing more is deleted."""
WRITES = {"create", "update", "patch", "delete"}
QUESTIONS = {"selfsubjectaccessreviews", "tokenreviews"}


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


class Audit:
    """The operator's writes since a moment."""

    def __init__(self, log: Path):
        self.log, self.offset, self.inode = log, log.stat().st_size, log.stat().st_ino

    def writes(self) -> list[dict[str, Any]]:
        """The objects that were written.

        Raises:
            RuntimeError: the log was renamed meanwhile.
        """
        if self.log.stat().st_ino != self.inode:
            raise RuntimeError(f"{self.log} has become too long: raise AUDIT_MIB")
        found = []
        with self.log.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                event = json.loads(line)
                target = event.get("objectRef", {})
                ours = event["user"]["username"] == OPERATOR_USER and event["verb"] in WRITES
                if ours and target.get("resource") not in QUESTIONS:
                    found.append({**target, "verb": event["verb"]})
        return found

    def counted(self) -> Counter[str]:
        """By verb and resource."""
        return Counter(f"{w['verb']} {w['resource']}" for w in self.writes())


@dataclass
class Stage:
    """One API server, and how to start an operator next to it."""

    api: KubeApi
    folder: Path
    kubeconfig: Path
    port: int = field(default_factory=lambda: _free_ports(1)[0])
    """Of the operator's progress server."""

    @property
    def audit_log(self) -> Path:
        return self.folder / "logs" / "audit.log"

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        """An operator that is ready, until the end of the block."""
        running = Operator(self.kubeconfig, self.folder, progress_port=self.port)
        try:
            await wait_ready(running)
            yield running
        finally:
            running.stop()


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """A control plane with our definitions, a user for the operator and the Secret of its certificate."""
    with control_plane(folder, controllers=True, audit_mib=AUDIT_MIB, controller_qps=CONTROLLER_QPS) as kubeconfig:
        server = KubeApi(kubeconfig).server
        user = Authority(folder / "pki").kubeconfig(folder / "op.kubeconfig", server, OPERATOR_USER, "system:masters")
        async with KubeApi(kubeconfig) as api:
            await install(api)
            await empty_tls_secret(api)
            yield Stage(api, folder, user)


async def quiet(on: Stage, seconds: float = 10) -> None:
    """Wait until the operator has written nothing for a while."""
    while True:
        audit = Audit(on.audit_log)
        await asyncio.sleep(seconds)
        if not audit.writes():
            return


async def measure_creation(on: Stage, load: Load) -> None:
    """All jobs at once, until the operator has nothing left to do; then with pods that run, or find no node."""
    async with on.operator() as operator:
        await one_life(on)
        load.empty = operator.rss()
    for namespace in load.namespaces:
        await prepare(on.api, namespace)
    async with on.operator() as operator:
        cpu, began = operator.cpu(), time.monotonic()
        await on.api.create_all(_jobs(load))
        await until("all statuses", lambda: _have_status(on.api, load), every=2, guard=GUARD_SECONDS)
        load.created = time.monotonic() - began
        pods = load.jobs + load.active
        await until("all pods", lambda: _count(on.api, load, "/api/v1", "pods", pods), every=2, guard=GUARD_SECONDS)
        load.created_cpu = operator.cpu() - cpu


async def one_life(on: Stage) -> None:
    """A job comes and goes: what the operator loads with the first one does not belong to the others."""
    await prepare(on.api, FIRST)
    await first_status(on.api, f"{HONE}/namespaces/{FIRST}/finetunejobs", "first")
    await _delete(on, FIRST)
    await asyncio.sleep(SETTLE_SECONDS)


def _jobs(load: Load) -> Any:
    number = 0
    for namespace, size in load.namespaces.items():
        for _ in range(size):
            body = job(f"job-{number}")
            body["spec"]["resources"]["nodes"] = 2 if number < load.active else 1
            yield f"{HONE}/namespaces/{namespace}/finetunejobs", body
            number += 1


async def _have_status(api: KubeApi, load: Load) -> bool:
    if not await _count(api, load, "/apis/batch/v1", "jobs", load.jobs):
        return False
    for namespace in load.namespaces:
        async for body in api.each(f"{HONE}/namespaces/{namespace}/finetunejobs"):
            if not body.get("status", {}).get("attempts"):
                return False
    return True


async def _count(api: KubeApi, load: Load, prefix: str, plural: str, wanted: int) -> bool:
    counts = [await api.count(f"{prefix}/namespaces/{namespace}/{plural}") for namespace in load.namespaces]
    return sum(counts) >= wanted


async def measure_restart(on: Stage, load: Load) -> None:
    """Start the operator with all jobs there, and watch what it writes and costs while nothing happens."""
    pods = await set_pods(on.api, list(load.namespaces), {f"job-{n}" for n in range(load.active)})
    async with on.operator():  # it takes the change of the pods in
        await quiet(on)
    audit, began = Audit(on.audit_log), time.monotonic()
    async with on.operator() as operator:
        load.restart, load.restart_cpu = time.monotonic() - began, operator.cpu()
        await asyncio.sleep(20)
        cpu, since = operator.cpu(), time.monotonic()
        await asyncio.sleep(40)
        load.idle_cores = (operator.cpu() - cpu) / (time.monotonic() - since)
        load.restarted, load.restart_writes = operator.rss(), audit.counted()
        load.reporters = Reporters(on.port)
        await load.reporters.start(on.api, pods)
        await measure_active(on, load, operator)
        await load.reporters.stop()
        load.rss, load.peak = operator.rss(), operator.peak_rss()
        await measure_deletion(on, load)
        load.after = operator.rss()


MINUTES = 5.0


async def measure_active(on: Stage, load: Load, operator: Operator) -> None:
    """The jobs that run report; meanwhile new ones come, one at a time."""
    await asyncio.sleep(20)  # each has reported by now, and the operator knows their tokens
    audit, cpu, began = Audit(on.audit_log), operator.cpu(), time.monotonic()
    path = f"{HONE}/namespaces/load-0/finetunejobs"
    while time.monotonic() - began < MINUTES * 60:
        load.latencies.append(await first_status(on.api, path, f"new-{len(load.latencies)}"))
        await asyncio.sleep(1)
    seconds = time.monotonic() - began
    load.cores = (operator.cpu() - cpu) / seconds
    runs = {f"job-{n}" for n in range(load.active)}
    mine = [w for w in audit.writes() if w.get("name", "") in runs]
    load.writes, load.minutes = len(mine) / load.active, seconds / 60


async def measure_deletion(on: Stage, load: Load) -> None:
    """Delete one namespace after the other."""
    for namespace, size in load.namespaces.items():
        seconds = await _delete(on, namespace)
        if size > load.deleted:
            load.deletion, load.deleted = seconds, size
    await asyncio.sleep(SETTLE_SECONDS)


async def _delete(on: Stage, namespace: str) -> float:
    """Delete a namespace; seconds until it is gone."""
    await on.api.call("DELETE", f"/api/v1/namespaces/{namespace}")

    async def gone() -> bool:
        listed = await on.api.call("GET", "/api/v1/namespaces")
        return namespace not in [each["metadata"]["name"] for each in listed["items"]]

    return await until(f"the end of {namespace}", gone, every=0.5, guard=GUARD_SECONDS)


async def measure(load: Load, folder: Path) -> None:
    """All of it, in one API server."""
    async with stage(folder) as on:
        await measure_creation(on, load)
        await measure_restart(on, load)


async def measure_records(count: int, folder: Path) -> records.Records:
    """Finished jobs that are kept as records."""
    kept = records.Records(count)
    async with stage(folder) as on:
        await prepare(on.api, records.NAMESPACE)
        async with on.operator():
            template = await records.finish_one(on.api)
        async with on.operator() as operator:
            await quiet(on)
            kept.empty = operator.rss()
        await records.copy(on.api, template, count)
        async with on.operator():  # it takes them in
            await quiet(on)
        audit, began = Audit(on.audit_log), time.monotonic()
        async with on.operator() as operator:
            kept.restart = time.monotonic() - began
            await asyncio.sleep(20)
            kept.rss, kept.writes = operator.rss(), audit.counted()
    return kept


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


def main() -> int:
    """Exit code 0 if all bounds are held."""
    global MINUTES
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[500, 1000], help="how many FineTuneJobs, one run each")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long jobs report")
    parser.add_argument("--records", type=int, default=0, help="how many finished jobs are kept")
    parser.add_argument("--folder", type=Path, help="an empty folder for data and logs (default: a temporary one)")
    args = parser.parse_args()
    MINUTES = args.minutes
    os.environ["HONE_PROGRESS__SERVICE_HOST"] = "localhost"
    loads, held = [Load(jobs) for jobs in args.jobs], True
    with tempfile.TemporaryDirectory() as temporary:
        root = args.folder or Path(temporary)
        for load in loads:
            asyncio.run(measure(load, root / str(load.jobs)))
            held = show(f"{load.jobs} FineTuneJobs", rows(load)) and held
            shutil.rmtree(root / str(load.jobs) / "etcd")
        if args.records:
            kept = asyncio.run(measure_records(args.records, root / "records"))
            held = show(f"{args.records} records of finished jobs", record_rows(kept)) and held
        if loads:
            curve(loads)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
