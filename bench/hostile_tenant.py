"""How a hostile tenant affects the others: floods of objects, status, children, connections, large and deep specs.

    make setup && .venv/bin/python bench/hostile_tenant.py [--minutes 20] [--lanes objects,connections]

Runs a real etcd, API server and controller manager, and the operator as a process of its own with its progress server
on loopback. One tenant has the rights of `edit` in one namespace and runs every lane in `hostile_lanes.py` from another
process. Each second one of ten other namespaces gets a FineTuneJob. A plain watch of these namespaces records when the
API server delivers the new job and when it delivers its first status; the bound applies to the time in between. That
time includes the API server's answers to the operator's requests, so a plain client repeats the same requests for
comparison: on this machine the API server shares the cores. No pod runs. The exit code is 1 if a bound is missed or
the operator has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import yaml
from hostile_lanes import HONEST, HOSTILE, LANES, Attack
from kubeapi import HONE, KubeApi
from measured_operator import Operator, free_ports, wait_ready
from operator_objects import job, prepare
from rich.console import Console
from rich.table import Table

from hone_dev.cluster.controlplane import control_plane
from hone_dev.cluster.pki import Authority
from hone_dev.tools.tools import helm

ROOT = Path(__file__).resolve().parents[1]
MEMORY_LIMIT = 512.0
"""MiB: the limit of the operator's container by the chart's values."""
P99_SECONDS = 2.0
PROBE_PERIOD, PROBE_TIMEOUT, PROBE_FAILURES = 15.0, 5.0, 4
"""Of the liveness probe in the chart's Deployment."""


@dataclass
class Seen:
    """When one job was created, delivered, and delivered with a status; monotonic seconds."""

    created: float
    delivered: float = 0.0
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    status: float = 0.0


@dataclass
class Soak:
    """What the honest tenants and the machine saw."""

    jobs: dict[str, Seen] = field(default_factory=dict)
    lost: int = 0
    """Jobs that had no status after two minutes."""
    plain: list[float] = field(default_factory=list)
    """Seconds in which a plain client made what the operator makes for a job."""
    rss: list[float] = field(default_factory=list)
    unhealthy: list[str] = field(default_factory=list)
    """What came of the liveness probes that failed."""
    in_a_row: int = 0
    """The most of them in a row."""

    def reconcile(self, share: float) -> float:
        """A quantile of the seconds from the delivery of a job to its first status."""
        return _quantile([s.status - s.delivered for s in self.jobs.values() if s.status], share)

    def by_plain_client(self, share: float) -> float:
        """A quantile of the seconds that a plain client needs for the same reads and writes."""
        return _quantile(self.plain, share)

    def delivery(self, share: float) -> float:
        """A quantile of the seconds from the creation of a job to its delivery by a plain watch."""
        return _quantile([s.delivered - s.created for s in self.jobs.values() if s.delivered], share)


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


async def watch(api: KubeApi, soak: Soak) -> None:
    """Note when the API server delivers the honest tenants' jobs, and when their first status."""
    selector = quote(f"metadata.namespace!={HOSTILE}")
    while True:
        listed = await api.call("GET", f"{HONE}/finetunejobs?fieldSelector={selector}")
        version = listed["metadata"]["resourceVersion"]
        path = f"{HONE}/finetunejobs?watch=1&fieldSelector={selector}&resourceVersion={version}"
        async with api.session.get(path, timeout=aiohttp.ClientTimeout(total=None)) as stream:
            async for line in stream.content:
                body = json.loads(line)["object"]
                seen = soak.jobs.get(body["metadata"].get("name", ""))
                if seen is None:
                    continue
                seen.delivered = seen.delivered or time.monotonic()
                if body.get("status", {}).get("conditions") and not seen.status:
                    seen.status = time.monotonic()
                    seen.answered.set()


async def honest(api: KubeApi, soak: Soak, seconds: float) -> None:
    """A FineTuneJob each second in one of the honest namespaces, deleted once it has a status."""
    watching = asyncio.create_task(watch(api, soak))
    await asyncio.sleep(1)
    running: set[asyncio.Task[None]] = set()
    end = time.monotonic() + seconds
    for n in itertools.count():
        if time.monotonic() > end:
            break
        task = asyncio.create_task(_one(api, soak, HONEST[n % len(HONEST)], f"honest-{n}-{os.urandom(3).hex()}"))
        running.add(task)
        task.add_done_callback(running.discard)
        await asyncio.sleep(1)
    await asyncio.gather(*running)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def _one(api: KubeApi, soak: Soak, namespace: str, name: str) -> None:
    path = f"{HONE}/namespaces/{namespace}/finetunejobs"
    seen = soak.jobs[name] = Seen(time.monotonic())
    await api.call("POST", path, job(name))
    try:
        await asyncio.wait_for(seen.answered.wait(), 120)
    except TimeoutError:
        soak.lost += 1
    await api.call("DELETE", f"{path}/{name}")


def run_hostile(tenant: Path, plan: dict[str, Any], outcomes: Path) -> None:
    """The hostile tenant's process: every lane until SIGTERM; writes what came of the attempts, once a second.

    Elsewhere it would have a machine of its own. Here it gets the cores that the API server and the operator leave: it
    needs them to write its requests, of 1.3 MB each.
    """
    os.nice(19)

    async def lanes() -> None:
        async with KubeApi(tenant, plan["connections"]) as api:
            hostile = Attack(api, plan["progress_port"], plan["victims"], plan["pause"])
            tasks = [asyncio.create_task(LANES[name](hostile), name=name) for name in plan["lanes"]]
            while True:
                await asyncio.sleep(1)
                broken = [f"{t.get_name()}: {t.exception()!r}" for t in tasks if t.done()]
                text = json.dumps({"lanes": hostile.outcomes, "broken": broken})
                partial = outcomes.with_suffix(".partial")
                partial.write_text(text)
                partial.rename(outcomes)

    asyncio.run(lanes())


async def sample_memory(operator: Operator, soak: Soak) -> None:
    """Resident memory once a second."""
    while operator.process.poll() is None:
        lines = Path(f"/proc/{operator.process.pid}/status").read_text().splitlines()
        soak.rss.append(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024)
        await asyncio.sleep(1)


async def write_plainly(api: KubeApi, soak: Soak) -> None:
    """Every few seconds, write what the operator writes for a new job: what it costs without any operator."""
    core, name = "/api/v1/namespaces/team-0", "plain"
    meta = {"name": name}
    path = f"{HONE}/namespaces/team-0/finetunejobs"
    await api.call("POST", path, {**job(name), "spec": {**job(name)["spec"], "suspend": True}})
    pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "example.org/x"}]}
    first = {
        f"{core}/configmaps": {"metadata": meta, "data": {"plan.json": "x" * 4000}},
        f"{core}/services": {"metadata": meta, "spec": {"clusterIP": "None", "selector": {"a": "b"}}},
        "/apis/networking.k8s.io/v1/namespaces/team-0/networkpolicies": {"metadata": meta, "spec": {"podSelector": {}}},
    }
    jobs = "/apis/batch/v1/namespaces/team-0/jobs"
    body = {"metadata": meta, "spec": {"suspend": True, "template": {"spec": pod}}}
    for n in itertools.count():
        began = time.monotonic()
        await api.call("GET", f"{HONE}/namespaces/team-0/modelversions")
        await asyncio.gather(*(api.call("POST", where, what) for where, what in first.items()))
        await api.call("POST", jobs, body)
        status = {"status": {"progress": {"step": n}}}
        await api.call("PATCH", f"{path}/{name}/status", status, "application/merge-patch+json")
        soak.plain.append(time.monotonic() - began)
        for where in (*first, jobs):
            await api.call("DELETE", f"{where}/{name}?propagationPolicy=Background")
        await asyncio.sleep(3)


async def probe(operator: Operator, soak: Soak) -> None:
    """Ask whether the operator is alive as the chart has the kubelet ask."""
    url, failed = f"http://127.0.0.1:{operator.probe}/healthz", 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT)) as session:
        while operator.process.poll() is None:
            try:
                async with session.get(url) as answer:
                    problem = await answer.text() if answer.status != 200 else None
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = type(error).__name__
            failed = failed + 1 if problem else 0
            soak.in_a_row = max(soak.in_a_row, failed)
            soak.unhealthy += [problem] if problem else []
            await asyncio.sleep(PROBE_PERIOD)


async def install(api: KubeApi) -> None:
    """Definitions, namespaces, and the hostile tenant's right to edit its own namespace."""
    for crd in sorted((ROOT / "crds").glob("*.yaml")):
        definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        await api.call("POST", definitions, yaml.safe_load(crd.read_text()))
    await api.call("POST", "/api/v1/namespaces", _namespace("hone-system"))
    for role in _user_roles():
        await api.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
    await asyncio.sleep(5)  # the API server serves a new kind a moment later; roles are aggregated
    for name in (HOSTILE, *HONEST):
        await prepare(api, name)
    binding = {
        "metadata": {"name": "edit"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "User", "name": HOSTILE, "apiGroup": "rbac.authorization.k8s.io"}],
    }
    await api.call("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{HOSTILE}/rolebindings", binding)


def _user_roles() -> list[dict[str, Any]]:
    chart = [helm(), "template", "hone", ROOT / "charts/hone", "--show-only", "templates/user-roles.yaml"]
    return list(yaml.safe_load_all(subprocess.run(chart, check=True, capture_output=True).stdout))


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


async def run(args: argparse.Namespace, folder: Path, kubeconfig: Path) -> bool:
    """A minute without the hostile tenant, then the soak; prints both."""
    server, authority = KubeApi(kubeconfig).server, Authority(folder / "pki")
    user = authority.kubeconfig(folder / "operator.kubeconfig", server, "hone-operator", "system:masters")
    tenant = authority.kubeconfig(folder / "tenant.kubeconfig", server, HOSTILE, "tenants")
    port = free_ports(1)[0]
    os.environ["HONE_PROGRESS__SERVICE_HOST"] = "localhost"
    async with KubeApi(kubeconfig) as api:
        await install(api)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hone-operator-tls"}}
        await api.call("POST", "/api/v1/namespaces/hone-system/secrets", secret)
        operator = Operator(user, folder, progress_port=port)
        try:
            await wait_ready(operator)
            quiet, soak = Soak(), Soak()
            await honest(api, quiet, 60)
            victims = [(await api.call("POST", f"{HONE}/namespaces/{n}/finetunejobs", job("victim"))) for n in HONEST]
            plan = {
                "connections": args.connections,
                "progress_port": port,
                "victims": [v["metadata"]["uid"] for v in victims],
                "pause": args.pause,
                "lanes": args.lanes,
            }
            outcomes = folder / "outcomes.json"
            attacker = multiprocessing.get_context("spawn").Process(target=run_hostile, args=(tenant, plan, outcomes))
            attacker.start()
            looks = (sample_memory(operator, soak), probe(operator, soak), write_plainly(api, soak))
            watching = [asyncio.create_task(look) for look in looks]
            try:
                await honest(api, soak, 60 * args.minutes)
            finally:
                attacker.terminate()
                await asyncio.to_thread(attacker.join)
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            return report(quiet, soak, json.loads(outcomes.read_text()), operator.process.poll() is None)
        finally:
            with contextlib.suppress(ProcessLookupError):
                operator.stop()


def report(quiet: Soak, soak: Soak, came: dict[str, Any], alive: bool) -> bool:
    """Print attempts, latencies and memory; True when every bound held."""
    console = Console(width=110)
    table = Table("lane", "attempts", "outcomes")
    for lane, counts in came["lanes"].items():
        words = (f"{k} {v}" for k, v in Counter(counts).most_common())
        table.add_row(lane, str(sum(counts.values())), ", ".join(words))
    console.print(table)
    for text, times in Counter(soak.unhealthy).items():
        console.print(f"the liveness probe, {times} times: {text}", markup=False)
    for line in came["broken"]:
        console.print(f"a lane ended: {line}", markup=False)
    peak, p99 = max(soak.rss, default=0.0), soak.reconcile(0.99)
    rows = [
        ("operator still the same process", "yes" if alive else "NO", "", alive),
        (
            "liveness probes that failed in a row",
            str(soak.in_a_row),
            f"< {PROBE_FAILURES}",
            soak.in_a_row < PROBE_FAILURES,
        ),
        (f"jobs of other tenants without a status, of {len(soak.jobs)}", str(soak.lost), "0", soak.lost == 0),
        ("delivery to status, p50 and p99, quiet", _both(quiet.reconcile), "", True),
        ("delivery to status, p50 and p99, under attack", _both(soak.reconcile), "<= 2,000", p99 <= P99_SECONDS),
        (
            "the same reads and writes by a plain client, under attack",
            _both(lambda q: _quantile(soak.plain, q)),
            "",
            True,
        ),
        ("creation to delivery (API server), quiet", _both(quiet.delivery), "", True),
        ("creation to delivery (API server), under attack", _both(soak.delivery), "", True),
        ("operator's RSS, at most", f"{peak:.0f} MiB", f"<= {MEMORY_LIMIT:.0f}", 0 < peak <= MEMORY_LIMIT),
        ("every lane ran to the end", "NO" if came["broken"] else "yes", "", not came["broken"]),
    ]
    figures = Table("figure", "measured", "bound", "held")
    for name, value, bound, held in rows:
        figures.add_row(name, value, bound, "yes" if held else "NO")
    console.print(figures)
    return all(row[3] for row in rows)


def _both(quantile: Callable[[float], float]) -> str:
    return f"{quantile(0.5) * 1000:,.0f} and {quantile(0.99) * 1000:,.0f} ms"


def _lanes(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(LANES):
        raise argparse.ArgumentTypeError(f"no such lane: {', '.join(sorted(unknown))}; there are {', '.join(LANES)}")
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="length of the soak")
    parser.add_argument("--lanes", type=_lanes, default=list(LANES), help="comma-separated: " + ", ".join(LANES))
    parser.add_argument(
        "--connections", type=int, default=8, help="connections of the hostile tenant to the API server"
    )
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two attempts of a lane")
    parser.add_argument("--keep", type=Path, help="folder for logs and data (default: temporary)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with control_plane(folder, controllers=True) as kubeconfig:
            held = asyncio.run(run(args, folder, kubeconfig))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
