"""How the operator carries 1,000 FineTuneJobs of two nodes, against a real etcd, API server and controller manager.

    make setup && .venv/bin/python bench/operator_scale.py [--jobs 1000]

Pods are created but never run. Printed next to each other, from one run: creating the very same ConfigMaps, Services
and Jobs directly over 20 connections, and creating 1,000 FineTuneJobs over 20 connections with the operator doing it.
Exit code 1 when a bound is missed. The reference in the last column is Kubeflow Trainer 2.3 with JobSet on a quiet
machine of 2 cores.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeapi import HONE, KubeApi, writes
from measured_operator import OPERATOR_USER, operating, until
from operator_objects import first_status, install, job, prepare
from rich.console import Console
from rich.table import Table

from hone_dev.cluster.controlplane import control_plane
from hone_dev.cluster.pki import Authority

OF_NAMESPACE = ("patch configmaps", "create models", "patch models/status")
"""Writes that a namespace costs once, however many jobs it has: its ledger, which is the only ConfigMap that the
operator changes, and the Model that all jobs make versions of."""


@dataclass
class Figures:
    """What one run measured; times in seconds, memory in MiB."""

    jobs: int
    direct: float = 0
    ours: float = 0
    writes_per_job: float = 0
    namespace_writes: int = 0
    """`OF_NAMESPACE`."""
    cpu: float = 0
    peak_rss: float = 0
    steady_p99: float = 0
    restart_writes: int = 0
    restart_ready: float = 0


async def children_of(api: KubeApi, namespace: str) -> list[tuple[str, dict[str, Any]]]:
    """(collection path, object) of what the operator made for one job, as it could be created again."""
    found = []
    for path in (
        f"/api/v1/namespaces/{namespace}/configmaps",
        f"/api/v1/namespaces/{namespace}/services",
        f"/apis/batch/v1/namespaces/{namespace}/jobs",
    ):
        for item in (await api.call("GET", path))["items"]:
            if not any(o["kind"] == "FineTuneJob" for o in item["metadata"].get("ownerReferences", ())):
                continue  # of the namespace: its root certificate, its ledger of contents
            kind, version = {"configmaps": ("ConfigMap", "v1"), "services": ("Service", "v1")}.get(
                path.rpartition("/")[2], ("Job", "batch/v1")
            )
            found.append((path, _template({**item, "kind": kind, "apiVersion": version})))
    return found


def _template(item: dict[str, Any]) -> dict[str, Any]:
    item = copy.deepcopy(item)
    item.pop("status", None)
    item["metadata"] = {k: v for k, v in item["metadata"].items() if k in ("name", "labels", "annotations")}
    spec = item.get("spec", {})
    for generated in ("selector",) if item["kind"] == "Job" else ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        spec.pop(generated, None)
    for owner in (item, spec.get("template", {})):
        labels = owner.get("metadata", {}).get("labels") or {}
        for key in [k for k in labels if "controller-uid" in k or k.endswith("job-name") or k.startswith("hone.dev/")]:
            labels.pop(key)
    return item


def copies(templates: list[tuple[str, dict[str, Any]]], namespace: str, jobs: int) -> Any:
    """The same objects `jobs` times, in another namespace."""
    for number in range(jobs):
        for path, item in templates:
            one = copy.deepcopy(item)
            one["metadata"]["name"] = f"direct-{number}-{one['kind'].lower()}"
            head, _, resource = path.rpartition("/")
            yield f"{head.rpartition('/')[0]}/{namespace}/{resource}", one


async def measure_direct(api: KubeApi, kubeconfig: Path, folder: Path, figures: Figures) -> None:
    """Let the operator make one job's children, then create as many of them directly as the burst will have."""
    await prepare(api, "sample")
    async with operating(kubeconfig, folder):
        await api.call("POST", f"{HONE}/namespaces/sample/finetunejobs", job("sample"))

        async def job_exists() -> bool:
            return await api.count("/apis/batch/v1/namespaces/sample/jobs") == 1

        await until("the child Job of the sample", job_exists)
    templates = await children_of(api, "sample")
    await api.call(
        "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "direct"}}
    )
    start = time.monotonic()
    await api.create_all(copies(templates, "direct", figures.jobs))
    figures.direct = time.monotonic() - start
    await settle(api, "direct", figures.jobs)


async def settle(api: KubeApi, namespace: str, jobs: int) -> None:
    """Wait until the Job controller has made all pods, so that the next phase has the machine for itself."""

    async def all_pods() -> bool:
        return await api.count(f"/api/v1/namespaces/{namespace}/pods") >= 2 * jobs

    await until(f"the pods of {namespace}", all_pods, every=1)


async def measure_burst(api: KubeApi, kubeconfig: Path, folder: Path, audit_log: Path, figures: Figures) -> None:
    """Create all FineTuneJobs at once; then, with the burst absorbed, one at a time."""
    namespace, path = "burst", f"{HONE}/namespaces/burst/finetunejobs"
    await prepare(api, namespace)
    async with operating(kubeconfig, folder) as operator:
        cpu, offset, start = operator.cpu(), audit_log.stat().st_size, time.monotonic()
        await api.create_all((path, job(f"job-{n}")) for n in range(figures.jobs))

        async def all_jobs() -> bool:
            return await api.count(f"/apis/batch/v1/namespaces/{namespace}/jobs") >= figures.jobs

        await until("all child Jobs", all_jobs, every=0.1)
        figures.ours = time.monotonic() - start
        await settle(api, namespace, figures.jobs)
        await quiet(audit_log)
        figures.cpu = operator.cpu() - cpu
        counts = writes(audit_log, OPERATOR_USER, offset)
        Console(stderr=True).print("operator's writes:", dict(counts))
        figures.namespace_writes = pop_namespace(counts)
        figures.writes_per_job = counts.total() / figures.jobs
        latencies = sorted([await first_status(api, path, f"one-{n}") for n in range(100)])
        figures.steady_p99 = latencies[98]
        figures.peak_rss = operator.peak_rss()
        await quiet(audit_log)


def pop_namespace(counts: Counter[str]) -> int:
    """Take the writes of the namespace out of the counts; how many there were."""
    return sum(counts.pop(each, 0) for each in OF_NAMESPACE)


async def quiet(audit_log: Path, seconds: float = 10) -> None:
    """Wait until the operator has written nothing for a while."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < seconds:
        now = writes(audit_log, OPERATOR_USER).total()
        if now != last:
            last, since = now, time.monotonic()
        await asyncio.sleep(1)


async def measure_restart(api: KubeApi, kubeconfig: Path, folder: Path, audit_log: Path, figures: Figures) -> None:
    """Start again with nothing changed: no write but the namespace's; then one job, to see that it reconciles."""
    offset, start = audit_log.stat().st_size, time.monotonic()
    async with operating(kubeconfig, folder):
        figures.restart_ready = time.monotonic() - start
        await asyncio.sleep(20)
        counts = writes(audit_log, OPERATOR_USER, offset)
        figures.namespace_writes += pop_namespace(counts)  # with the runs since a Dataset last changed
        figures.restart_writes = counts.total()
        if counts:
            Console(stderr=True).print("writes after the restart:", dict(counts))
        await first_status(api, f"{HONE}/namespaces/burst/finetunejobs", "after-restart")


def report(f: Figures) -> bool:
    """Print the figures with their bounds; True when all are held."""
    rows = [
        (f"{f.jobs} child Jobs exist", f"{f.ours:.1f} s", "", True, "57.8 s"),
        ("the same objects created directly", f"{f.direct:.1f} s", "", True, ""),
        ("ratio to direct", f"{f.ours / f.direct:.2f}", "<= 4", f.ours <= 4 * f.direct, ""),
        ("API writes per job", f"{f.writes_per_job:.2f}", "<= 5", f.writes_per_job <= 5, "7.7"),
        ("writes of the namespace: ledger, Model", f"{f.namespace_writes}", "<= 8", f.namespace_writes <= 8, ""),
        ("operator CPU for the burst", f"{f.cpu:.1f} s", "<= 21.6 s", f.cpu <= 21.6 * f.jobs / 1000, "21.6 s"),
        ("operator peak RSS", f"{f.peak_rss:.0f} MiB", "<= 190", f.peak_rss <= 190, "190 MiB"),
        ("event to status, p99, after the burst", f"{f.steady_p99 * 1000:.0f} ms", "<= 1000", f.steady_p99 <= 1, ""),
        ("writes after a restart", f"{f.restart_writes}", "0", f.restart_writes == 0, ""),
        ("ready after a restart", f"{f.restart_ready:.1f} s", "<= 5", f.restart_ready <= 5, ""),
    ]
    table = Table("figure", "measured", "bound", "held", "Kubeflow Trainer 2.3")
    for name, value, bound, held, reference in rows:
        table.add_row(name, value, bound, "yes" if held else "NO", reference)
    Console(width=110).print(table)
    return all(row[3] for row in rows)


async def run(jobs: int, folder: Path, kubeconfig: Path) -> Figures:
    """All phases, in one API server."""
    audit_log = folder / "logs" / "audit.log"
    server = KubeApi(kubeconfig).server
    user = Authority(folder / "pki").kubeconfig(folder / "operator.kubeconfig", server, OPERATOR_USER, "system:masters")
    figures = Figures(jobs)
    async with KubeApi(kubeconfig) as api:
        await install(api)
        await measure_direct(api, user, folder, figures)
        await measure_burst(api, user, folder, audit_log, figures)
        await measure_restart(api, user, folder, audit_log, figures)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, help="FineTuneJobs in the burst")
    parser.add_argument("--keep", type=Path, help="folder for logs and data (default: temporary)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        with control_plane(folder, controllers=True) as kubeconfig:
            figures = asyncio.run(run(args.jobs, folder, kubeconfig))
    return 0 if report(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
