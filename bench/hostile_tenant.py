"""What other tenants notice of a hostile one: floods of objects, status, children, connections, large and deep specs.

    make setup && .venv/bin/python bench/hostile_tenant.py [--minutes 20] [--lanes objects,connections]

A real etcd, API server and controller manager; the operator is a process of its own with its progress server on
loopback. One tenant has the rights of `edit` in one namespace and runs every lane below for the whole time, from a
process of its own. Ten other namespaces get a FineTuneJob each second. A plain watch of these namespaces tells when
the API server delivers the new object and when it delivers its first status: the difference is the operator's, the
time before it the API server's, which shares the machine's cores here. Pods are never run. Exit code 1 when a bound
is missed or the operator has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import yaml
from kubeapi import HONE, KubeApi
from operator_scale import Operator, _free_ports, job, prepare, wait_ready
from rich.console import Console
from rich.table import Table

from hone_api.report import AUDIENCE
from hone_dev.controlplane import control_plane
from hone_dev.pki import Authority
from hone_dev.tools import helm

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "mallory"
HONEST = [f"team-{n}" for n in range(10)]
MEMORY_LIMIT = 512.0
"""MiB: the limit of the operator's container by the chart's values."""
P99_SECONDS = 2.0


@dataclass
class Attack:
    """What a lane needs, and what came of its attempts: `accepted`, `refused`, or the name of an error."""

    api: KubeApi
    progress_port: int
    victims: list[str]
    """uids of other tenants' objects."""
    pause: float
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)

    async def attempt(self, lane: str, act: Awaitable[Any]) -> bool:
        """Await one attempt and count its outcome."""
        counts = self.outcomes.setdefault(lane, Counter())
        try:
            await act
        except RuntimeError as error:
            code = str(error).split(": ", 1)[1][:3]
            counts["not found" if code == "404" else f"refused {code}"] += 1
            return False
        except (TimeoutError, OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            counts[type(error).__name__] += 1
            return False
        finally:
            await asyncio.sleep(self.pause)
        counts["accepted"] += 1
        return True

    def path(self, resource: str, group: str = HONE) -> str:
        """The collection in the hostile tenant's namespace."""
        return f"{group}/namespaces/{HOSTILE}/{resource}"


async def objects(attack: Attack) -> None:
    """Create small FineTuneJobs and Datasets as fast as possible and delete them again."""
    for n in itertools.count():
        jobs, datasets = attack.path("finetunejobs"), attack.path("datasets")
        name = f"flood-{n}"
        await attack.attempt("objects", attack.api.call("POST", jobs, job(name)))
        await attack.attempt("objects", attack.api.call("POST", datasets, _dataset(f"rows-{n}")))
        if n >= 200:
            await attack.attempt("objects", attack.api.call("DELETE", f"{jobs}/flood-{n - 200}"))
            await attack.attempt("objects", attack.api.call("DELETE", f"{datasets}/rows-{n - 200}"))


async def updates(attack: Attack) -> None:
    """Change a label of a Dataset that 200 jobs name: each change concerns all of them."""
    await attack.attempt("updates", attack.api.call("POST", attack.path("datasets"), _dataset("hub")))
    for n in range(200):
        body = job(f"spoke-{n}")
        body["spec"]["datasets"] = [{"name": "hub"}]
        await attack.attempt("updates", attack.api.call("POST", attack.path("finetunejobs"), body))
    for n in itertools.count():
        patch = {"metadata": {"labels": {"turn": str(n)}}}
        call = attack.api.call("PATCH", attack.path("datasets/hub"), patch, "application/merge-patch+json")
        await attack.attempt("updates", call)


async def large(attack: Attack) -> None:
    """Keep 50 objects that are as large as the API server takes, and write their annotations again and again."""
    for n in itertools.count():
        name = f"large-{n % 50}"
        body = job(name)
        body["metadata"]["annotations"] = {f"note-{k}": os.urandom(60_000).hex()[:120_000] for k in range(2)}
        body["metadata"]["labels"] = {f"l{k}": "x" * 63 for k in range(200)}
        if n < 50:
            await attack.attempt("large", attack.api.call("POST", attack.path("finetunejobs"), body))
        else:
            patch = {"metadata": {"annotations": body["metadata"]["annotations"]}}
            path = attack.path(f"finetunejobs/{name}")
            await attack.attempt("large", attack.api.call("PATCH", path, patch, "application/merge-patch+json"))


async def huge(attack: Attack) -> None:
    """Bodies of 1.3 MB in every place that might be free-form."""
    many = [{} for _ in range(430_000)]
    for n in itertools.count():
        body = job(f"huge-{n}")
        where = n % 3
        if where == 0:
            body["spec"]["podOverrides"] = {"a": many}
        elif where == 1:
            body["spec"]["training"] = {"schedule": many}
        else:
            body["metadata"]["annotations"] = {f"a{k}": "x" * 200_000 for k in range(6)}
        await attack.attempt("huge", attack.api.call("POST", attack.path("finetunejobs"), body))
        await asyncio.sleep(0.5)


async def deep(attack: Attack) -> None:
    """Nest 1,100, 3,000 and 9,000 levels."""
    for n in itertools.count():
        depth = (1_100, 3_000, 9_000)[n % 3]
        text = json.dumps(job(f"deep-{n}"))
        nested = '{"a":' * depth + "1" + "}" * depth
        raw = text.replace('"output"', f'"{("podOverrides", "unknown")[n % 2]}": {nested}, "output"', 1)
        await attack.attempt("deep", _raw(attack.api, attack.path("finetunejobs"), raw))


async def status(attack: Attack) -> None:
    """Write status of own objects and of others'."""
    body = {"status": {"phase": "Succeeded", "modelVersionName": "forged"}}
    for n in itertools.count():
        namespace = HOSTILE if n % 2 else random.choice(HONEST)
        path = f"{HONE}/namespaces/{namespace}/finetunejobs/spoke-{n % 200}/status"
        await attack.attempt("status", attack.api.call("PATCH", path, body, "application/merge-patch+json"))


async def children(attack: Attack) -> None:
    """Jobs and pods that name other tenants' objects as their controller."""
    for n in itertools.count():
        owner = {
            "apiVersion": "hone.dev/v1alpha1",
            "kind": "FineTuneJob",
            "name": "victim",
            "uid": random.choice(attack.victims),
            "controller": True,
        }
        labels = {"hone.dev/component": "training", "hone.dev/finetunejob": "victim", "hone.dev/attempt": "1"}
        meta = {"name": f"child-{n}", "labels": labels, "ownerReferences": [owner]}
        container = {"name": "trainer", "image": "example.org/x"}
        pod = {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", "containers": [container]}}
        body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"suspend": True, "template": pod}}
        await attack.attempt("children", attack.api.call("POST", attack.path("jobs", "/apis/batch/v1"), body))
        plain = {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "name": f"pod-{n}"}, "spec": pod["spec"]}
        await attack.attempt("children", attack.api.call("POST", attack.path("pods", "/api/v1"), plain))


async def connections(attack: Attack) -> None:
    """Open connections to the progress server and leave them: silent, half a request, half a body."""
    held: list[asyncio.StreamWriter] = []
    starts = (b"", b"POST /apis/hone.dev/", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{")

    async def open_one(number: int) -> None:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection("127.0.0.1", attack.progress_port, ssl=_unverified()), 5
        )
        del reader
        writer.write(starts[number % len(starts)])
        await writer.drain()
        held.append(writer)

    for n in itertools.count():
        await attack.attempt("connections", open_one(n))
        while len(held) > 2000:
            held.pop(0).transport.abort()


async def tokens(attack: Attack) -> None:
    """Reports with made-up tokens that look right, and with heads of 100 kB."""
    for n in itertools.count():
        claims = {"aud": [AUDIENCE], "exp": time.time() + 3600, "n": n}
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        token = f"e30.{body}.{'x' * (100_000 if n % 5 == 0 else 40)}"
        head = f"POST {HONE}/namespaces/team-0/finetunejobs/victim/status HTTP/1.1\r\nHost: x\r\n"
        head += f"Authorization: Bearer {token}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        await attack.attempt("tokens", _exchange(attack.progress_port, head.encode()))


LANES: dict[str, Callable[[Attack], Awaitable[None]]] = {
    f.__name__: f for f in (objects, updates, large, huge, deep, status, children, connections, tokens)
}


async def _exchange(port: int, request: bytes) -> None:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_unverified())
        try:
            writer.write(request)
            await writer.drain()
            answer = await reader.readline()
            if answer:
                raise RuntimeError(f"POST: {answer.split()[1].decode()}")
        finally:
            writer.close()


async def _raw(api: KubeApi, path: str, text: str) -> None:
    headers = {"Content-Type": "application/json"}
    async with api.session.post(path, data=text.encode(), headers=headers) as answer:
        if answer.status >= 300:
            raise RuntimeError(f"POST {path}: {answer.status}")


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _dataset(name: str) -> dict[str, Any]:
    spec = {"source": {"uri": "configmap://absent/rows.jsonl"}}
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": name}, "spec": spec}


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
    rss: list[float] = field(default_factory=list)

    def reconcile(self, share: float) -> float:
        """A quantile of the seconds from the delivery of a job to its first status."""
        return _quantile([s.status - s.delivered for s in self.jobs.values() if s.status], share)

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
    """The hostile tenant's process: every lane until SIGTERM; writes what came of the attempts, once a second."""

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
    port = _free_ports(1)[0]
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
            memory = asyncio.create_task(sample_memory(operator, soak))
            try:
                await honest(api, soak, 60 * args.minutes)
            finally:
                attacker.terminate()
                await asyncio.to_thread(attacker.join)
            memory.cancel()
            await asyncio.gather(memory, return_exceptions=True)
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
    for line in came["broken"]:
        console.print(f"a lane ended: {line}", markup=False)
    peak, p99 = max(soak.rss, default=0.0), soak.reconcile(0.99)
    rows = [
        ("operator still the same process", "yes" if alive else "NO", "", alive),
        (f"jobs of other tenants without a status, of {len(soak.jobs)}", str(soak.lost), "0", soak.lost == 0),
        ("delivery to status, p50 and p99, quiet", _both(quiet.reconcile), "", True),
        ("delivery to status, p50 and p99, under attack", _both(soak.reconcile), "<= 2,000", p99 <= P99_SECONDS),
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
