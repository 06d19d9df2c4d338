"""How long Kueue takes to admit 1,000 FineTuneJobs, next to the same Jobs without Hone, in the same run.

    make setup && .venv/bin/python bench/kueue_admission.py [--jobs 1000]

Real etcd, API server, Job controller and Kueue; pods are created but never run. Quota is there for all, so what is
measured is the work of admitting. First, copies of one of the operator's Jobs are created over 20 connections while
no operator runs; then as many FineTuneJobs; then the copies again, all in one API server. Its memory grows with each
part, and so does the cost of its garbage collection, so the FineTuneJobs are compared with the mean of the parts
before and after them. The later copies also pay for the FineTuneJobs that are still stored: the ratio to the earlier
ones alone is an upper estimate, the ratio to the later ones a lower one. All times are from the first creation until
Kueue has admitted the last Workload. Exit code 1 if FineTuneJobs take more than 1.2 times as long.

The processor time of every program, for each job of a part, is from the first creation until the pods exist: where
few cores are shared, it says what the ratio of the times consists of.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from against_apiserver import command
from kubeapi import HONE, KubeApi, writes
from measured_operator import OPERATOR_USER, cpu_of, operating, until
from operator_objects import install, job, prepare
from operator_scale import children_of, copies
from rich.console import Console
from rich.table import Table

from hone_dev.cluster import kueue
from hone_dev.cluster.pki import Authority
from hone_dev.cluster.process import Supervisor

BOUND = 1.2
KUEUE = "/apis/kueue.x-k8s.io/v1beta2"
QUEUE = "team"
WITH_KUEUE = {"HONE_KUEUE__ENABLED": "true"}
COVERED = ("cpu", "memory", "ephemeral-storage")
"""What a pod of Hone on CPU requests."""
BEFORE, OURS, AFTER = "jobs-before", "finetunejobs", "jobs-after"
BARE, PARTS = (BEFORE, AFTER), (BEFORE, OURS, AFTER)
"""The parts by their namespaces."""


@dataclass
class Figures:
    """Seconds, and the operator's part in them."""

    jobs: int
    seconds: dict[str, float] = field(default_factory=dict)
    """Until the last Workload was admitted, by part."""
    cpu: dict[str, Counter[str]] = field(default_factory=dict)
    """Seconds of processor time by part and program."""
    writes: Counter[str] = field(default_factory=Counter)
    """The operator's, by verb and resource."""

    @property
    def ratio(self) -> float:
        return self.seconds[OURS] / self.bare

    @property
    def bare(self) -> float:
        """The mean of the parts without Hone."""
        return sum(self.seconds[part] for part in BARE) / len(BARE)

    def milliseconds(self, *programs: str) -> str:
        """Processor time per job, in each part."""
        each = (sum(self.cpu[part][name] for name in programs) / self.jobs for part in PARTS)
        return ", ".join(f"{1000 * seconds:.1f}" for seconds in each) + " ms"

    @contextmanager
    def measured(self, part: str, programs: dict[str, int]) -> Iterator[None]:
        """Measure the processor time of these programs, by their process ids, until the end of the block."""
        before = {name: cpu_of(pid) for name, pid in programs.items()}
        yield
        self.cpu[part] = Counter({name: cpu_of(pid) - before[name] for name, pid in programs.items()})


def queued(name: str) -> dict[str, Any]:
    """A FineTuneJob of one pod in the queue."""
    body = job(name)
    body["spec"] |= {"resources": {"cpu": "1", "memory": "1Gi"}, "scheduling": {"queueName": QUEUE}}
    return body


async def queues(api: KubeApi) -> None:
    """A ClusterQueue with quota for all, and the LocalQueues of all parts."""

    async def add(collection: str, kind: str, name: str, spec: dict[str, Any]) -> None:
        body = {"apiVersion": KUEUE.removeprefix("/apis/"), "kind": kind, "metadata": {"name": name}, "spec": spec}
        await api.call("POST", f"{KUEUE}/{collection}", body)

    resources = [{"name": name, "nominalQuota": "1Pi"} for name in COVERED]
    group = {"coveredResources": list(COVERED), "flavors": [{"name": "any", "resources": resources}]}
    await add("resourceflavors", "ResourceFlavor", "any", {})
    await add("clusterqueues", "ClusterQueue", "all", {"namespaceSelector": {}, "resourceGroups": [group]})
    for namespace in PARTS:
        await add(f"namespaces/{namespace}/localqueues", "LocalQueue", QUEUE, {"clusterQueue": "all"})


async def admitted(api: KubeApi, namespace: str, jobs: int, since: float) -> float:
    """Seconds from a time of day until Kueue admitted the last Workload, as its conditions say."""
    times: list[float] = []

    async def all_are() -> bool:
        times.clear()
        async for workload in api.each(f"{KUEUE}/namespaces/{namespace}/workloads"):
            conditions = (workload.get("status") or {}).get("conditions") or ()
            times.extend(
                datetime.fromisoformat(each["lastTransitionTime"]).timestamp()
                for each in conditions
                if each["type"] == "Admitted" and each["status"] == "True"
            )
        return len(times) >= jobs

    await until(f"the admission of {jobs} Jobs in {namespace}", all_are, every=2, guard=3 * 3600)
    return max(times) - since


async def settled(api: KubeApi, namespace: str, jobs: int) -> None:
    """Wait for the pods of all Jobs, so that the next part has the machine for itself."""

    async def all_pods() -> bool:
        return await api.count(f"/api/v1/namespaces/{namespace}/pods") >= jobs

    await until(f"the pods of {namespace}", all_pods, every=1, guard=3 * 3600)


async def job_of_ours(api: KubeApi, kubeconfig: Path, folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The Job that the operator makes, with the path of its collection. Kueue has not touched it: it has no queue."""
    await prepare(api, "sample")
    async with operating(kubeconfig, folder, env=WITH_KUEUE):
        await api.call("POST", f"{HONE}/namespaces/sample/finetunejobs", queued("sample"))

        async def exists() -> bool:
            return await api.count("/apis/batch/v1/namespaces/sample/jobs") == 1

        await until("the Job of the sample", exists)
    return [(path, body) for path, body in await children_of(api, "sample") if body["kind"] == "Job"]


async def run(jobs: int, folder: Path, kubeconfig: Path) -> Figures:
    """All parts, in one API server."""
    audit_log, figures = folder / "logs" / "audit.log", Figures(jobs)
    server = KubeApi(kubeconfig).server
    user = Authority(folder / "pki").kubeconfig(folder / "operator.kubeconfig", server, OPERATOR_USER, "system:masters")
    async with KubeApi(kubeconfig) as api:
        await install(api)
        await prepare(api, OURS)
        for namespace in BARE:
            await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        templates = await job_of_ours(api, user, folder)
        await queues(api)

        supervisor = Supervisor(folder.resolve())
        programs = {name: pid for name in supervisor.names() if (pid := supervisor.pid(name))}

        async def measure(part: str, created: Iterable[tuple[str, dict[str, Any]]], **more: int) -> None:
            with figures.measured(part, {**programs, **more}):
                start = time.time()
                await api.create_all(created)
                figures.seconds[part] = await admitted(api, part, jobs, start)
                await settled(api, part, jobs)

        await measure(BEFORE, copies(templates, BEFORE, jobs))
        async with operating(user, folder, env=WITH_KUEUE) as operator:
            offset, path = audit_log.stat().st_size, f"{HONE}/namespaces/{OURS}/finetunejobs"
            await measure(OURS, ((path, queued(f"job-{n}")) for n in range(jobs)), operator=operator.process.pid)
            figures.writes = writes(audit_log, OPERATOR_USER, offset)
        await measure(AFTER, copies(templates, AFTER, jobs))
    return figures


def report(figures: Figures) -> bool:
    """Print the figures; True if the bound is kept."""
    kept, jobs = figures.ratio <= BOUND, f"{figures.jobs:,}"
    table = Table("figure", "measured", "bound", "held")
    before, after = (f"{figures.seconds[part]:.0f} s" for part in BARE)
    table.add_row(f"{jobs} Jobs admitted, before and after", f"{before}, {after}", "", "")
    table.add_row(f"{jobs} FineTuneJobs admitted", f"{figures.seconds[OURS]:.0f} s", "", "")
    table.add_row("ratio to their mean", f"{figures.ratio:.2f}", f"<= {BOUND}", "yes" if kept else "NO")
    each = ", ".join(f"{figures.seconds[OURS] / figures.seconds[part]:.2f}" for part in BARE)
    table.add_row("ratio to the Jobs before, and after", each, "", "")
    for name, _ in figures.cpu[OURS].most_common():
        table.add_row(f"CPU of {name} per job: before, FineTuneJobs, after", figures.milliseconds(name), "", "")
    table.add_row("CPU of all per job: before, FineTuneJobs, after", figures.milliseconds(*figures.cpu[OURS]), "", "")
    table.add_row("operator's writes a job", f"{figures.writes.total() / figures.jobs:.1f}", "", "")
    for name, count in figures.writes.most_common():
        table.add_row(f"  {name}", f"{count / figures.jobs:.2f}", "", "")
    Console(width=100).print(table)
    return kept


if __name__ == "__main__":
    sys.exit(command(__doc__, "of each part", run, report, addons=(kueue.component,)))
