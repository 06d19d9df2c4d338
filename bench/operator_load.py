"""What thousands of FineTuneJobs cost the operator, against a real etcd, API server and controller manager.

    make setup && .venv/bin/python bench/operator_load.py --jobs 500 1000 2000 5000 [--minutes 5] [--records 20000]

For each number of jobs, in an API server of its own:

1. All jobs are created, in namespaces of at most 2,000. Each gets its Job and its pods. The benchmark does
   what scheduler and kubelet would do: it sets the pods of 200 jobs (a tenth of the jobs, if that is less) to Running,
   on two nodes each; all other pods find no node.
2. The operator is started again. It has to be ready soon, and to write nothing.
3. Each job that runs reports its progress every 5 s, over TLS and a connection of its own. Meanwhile new jobs come, one
   at a time.
4. One namespace is deleted after the other; the largest one counts.

Then, in one more API server, records of finished jobs: as many FineTuneJobs with a ModelVersion each as `--records`
says, without Jobs and pods. One of them is real; the others are copies.

Pods never run. Figures are printed next to their bounds, and one line for each number of jobs with the cost of a job.
With `--write`, docs/reliability.md gets a column for each number of jobs.
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
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import load_page
import records
from active_jobs import Reporters, empty_tls_secret, set_pods
from kubeapi import HONE, KubeApi
from load_figures import Load, curve, record_rows, rows, show
from measured_operator import OPERATOR_USER, Operator, free_ports, operating, until
from operator_objects import first_status, install, job, prepare

from hone_dev.cluster.controlplane import control_plane
from hone_dev.cluster.pki import Authority

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
    port: int = field(default_factory=lambda: free_ports(1)[0])
    """Of the operator's progress server."""

    @property
    def audit_log(self) -> Path:
        return self.folder / "logs" / "audit.log"

    def operator(self) -> AbstractAsyncContextManager[Operator]:
        """An operator that is ready, until the end of the block."""
        return operating(self.kubeconfig, self.folder, self.port)


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


def main() -> int:
    """Exit code 0 if all bounds are held."""
    global MINUTES
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[500, 1000], help="how many FineTuneJobs, one run each")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long jobs report")
    parser.add_argument("--records", type=int, default=0, help="how many finished jobs are kept")
    parser.add_argument("--write", action="store_true", help="write the columns of docs/reliability.md")
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
        if args.write:
            load_page.write(loads)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
