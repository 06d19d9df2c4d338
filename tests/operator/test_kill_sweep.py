"""kill -9 at every write: whatever the moment, the same end state, one Job an attempt, one ModelVersion.

A proxy between operator and API server numbers the operator's writes. For write n it kills the operator before the
write is forwarded, after it was carried out but before the answer, or after the answer; then the operator is started
again. The runs go on until there is no n-th write any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
import yaml
from aiohttp import web
from kube import GUARD_SECONDS

pytestmark = pytest.mark.apiserver
Point = Literal["before", "carried out", "answered"]
POINTS: tuple[Point, ...] = ("before", "carried out", "answered")
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HOP_BY_HOP = {"host", "connection", "transfer-encoding", "content-length", "authorization"}
DIGEST = "sha256:" + "0" * 64


class KillingProxy:
    """Plain HTTP on loopback to the API server's TLS; runs in a thread of its own."""

    def __init__(self, server: str, context: ssl.SSLContext):
        self._server, self._context = server, context
        self.port = 0
        self.writes: list[str] = []
        self.kill_at: tuple[int, Point] | None = None
        self.kill: Any = None
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(GUARD_SECONDS)

    def arm(self, at: tuple[int, Point] | None, kill: Any) -> None:
        """Kill at this write, counted from now; None: only count."""
        self.writes, self.kill_at, self.kill = [], at, kill

    def stop(self) -> None:
        """End the server and what it still forwards: a killed operator leaves its watches open."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GUARD_SECONDS)
        assert self._loop.is_closed()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._close())
        left = asyncio.all_tasks(self._loop)
        assert not left, left
        self._loop.close()

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _serve(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{tail:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    def _is_due(self, point: Point, number: int) -> bool:
        return self.kill_at == (number, point)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        number = 0
        if request.method in WRITES:
            self.writes.append(f"{request.method} {request.path}")
            number = len(self.writes)
        if self._is_due("before", number):
            self.kill()
            raise web.HTTPServiceUnavailable
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        async with self._session.request(
            request.method,
            self._server + request.raw_path,
            headers=headers,
            data=await request.read() or None,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            for key, value in answer.headers.items():
                if key.lower() not in HOP_BY_HOP:
                    response.headers[key] = value
            if number:
                body = await answer.read()
                if self._is_due("carried out", number):
                    self.kill()
                await response.prepare(request)
                await response.write(body)
                await response.write_eof()
                if self._is_due("answered", number):
                    self.kill()
                return response
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response


FORKS = """
import json, os, signal, sys
import hone_operator.__main__ as operator
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        out = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(0)
        os.environ.update(order["env"])
        operator.main()
        os._exit(0)
    print(pid, flush=True)
"""
"""A process that has the imports done and forks operators: a restart takes milliseconds."""


class Processes:
    """The operator's process, one at a time."""

    def __init__(self, log: str, kubeconfig: str):
        self._log = log
        # The client reads KUBECONFIG when it is imported: it must be there before the fork.
        env = {**os.environ, "KUBECONFIG": kubeconfig}
        self._forks = subprocess.Popen(
            [sys.executable, "-c", FORKS], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._pid: int | None = None

    def start(self, env: dict[str, str]) -> None:
        assert self._forks.stdin
        assert self._forks.stdout
        self._forks.stdin.write(json.dumps({"env": env, "log": self._log}) + "\n")
        self._forks.stdin.flush()
        self._pid = int(self._forks.stdout.readline())

    def log(self) -> str:
        return Path(self._log).read_text()[-4000:]

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        pid, self._pid = self._pid, None
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            while True:
                os.kill(pid, 0)
                time.sleep(0.001)

    def close(self) -> None:
        self.kill()
        self._forks.kill()
        self._forks.wait()


@dataclass
class Player:
    """Job controller and kubelet, level-based as well: looks at what is there and brings it one step on."""

    space: Any
    result: dict[str, Any]

    def step(self) -> bool:
        """True when the ModelVersion is Ready, the job Finished, and the Job that verified the files is gone."""
        jobs = self.space.list("Job")
        for job in jobs:
            self._play(job)
        run = self.space.get("FineTuneJob", "run")
        ready = any(_true(v, "Ready") for v in self.space.list("ModelVersion")) and self._is_counted()
        verifying = any(job["metadata"]["labels"]["hone.dev/component"] == "verify" for job in jobs)
        return _true(run, "Finished") and ready and not verifying

    def _is_counted(self) -> bool:
        """Whether the Model, which appears by itself, has seen the version."""
        return [m["status"].get("latest") for m in self.space.list("Model") if m.get("status")] == [1]

    def _play(self, job: dict[str, Any]) -> None:
        name, component = job["metadata"]["name"], job["metadata"]["labels"]["hone.dev/component"]
        if any(c["type"] in ("Complete", "Failed") for c in job["status"].get("conditions") or ()):
            return
        if component == "materialize":
            rows = {"rows": 10, "splits": [{"name": "train", "rows": 9}, {"name": "validation", "rows": 1}]}
            self.space.succeed(name, {"kind": "Materialize", "digest": DIGEST, "path": "datasets/x", **rows})
        elif component == "verify":
            self.space.succeed(name, {"kind": "Verify", "files": 1, "sizeBytes": 1})
        elif name == "run-1":
            pods = self.space.start_pods(name)
            taken = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            self.space.end_pod(pods[0], 75, conditions=[taken])
            self.space.end_job(name, "Failed", "PodFailurePolicy", "DisruptionTarget")
        else:
            self.space.succeed(name, self.result)


def _true(body: dict[str, Any], type_: str) -> bool:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(c["type"] == type_ and c["status"] == "True" for c in conditions)


def end_state(space: Any) -> dict[str, Any]:
    """What must not depend on when the operator was killed."""
    job = space.get("FineTuneJob", "run")
    version = space.get("ModelVersion", "tutor-v1")
    ledger = json.loads(space.get("ConfigMap", "hone-model-versions")["data"]["tutor"])
    return {
        "training jobs": [n for n in space.names("Job") if n.startswith("run-")],
        "other jobs": sorted(n.split("-")[1] for n in space.names("Job") if not n.startswith("run-")),
        "services": space.names("Service"),
        "plans": sorted(n.rsplit("-", 1)[0] for n in space.names("ConfigMap") if n.startswith("run-")),
        "versions": space.names("ModelVersion"),
        "models": {m["metadata"]["name"]: (m["spec"], m["status"]["latest"]) for m in space.list("Model")},
        "last number": ledger["last"],
        "of this job": version["spec"]["lineage"]["job"]["uid"] == job["metadata"]["uid"],
        "attempts": [(a["number"], a["jobName"], a["outcome"]) for a in job["status"]["attempts"]],
        "phase": job["status"]["phase"],
        "conditions": {c["type"]: (c["status"], c["reason"]) for c in job["status"]["conditions"]},
        "dataset": space.get("Dataset", "rows")["status"]["digest"],
        "verified": "verifiedAt" in version["status"],
    }


@pytest.fixture(scope="module")
def proxy(kube):
    context = ssl.create_default_context(cafile=str(kube.folder / "ca.crt"))
    context.load_cert_chain(kube.folder / "tls.crt", kube.folder / "tls.key")
    proxy = KillingProxy(kube.server, context)
    yield proxy
    proxy.stop()


@dataclass
class Sweep:
    """One life of a job after another, each with another moment of death."""

    proxy: KillingProxy
    processes: Processes
    spaces: Any
    spec: Any
    result: dict[str, Any]
    ports: list[int]

    def life(self, at: tuple[int, Point] | None) -> tuple[dict[str, Any], list[str]]:
        """(end state, writes) of a life in which the operator dies at `at`."""
        space = self.spaces()
        env = {
            "HONE_NAMESPACE": "hone-system",
            "HONE_TRAINER__IMAGE": "trainer",
            "HONE_WATCH_NAMESPACES": json.dumps([space.name]),
            "HONE_PORTS__PROBES": str(self.ports[0]),
            "HONE_PORTS__METRICS": str(self.ports[1]),
        }
        killed = threading.Event()

        def kill() -> None:
            self.processes.kill()
            killed.set()

        self.proxy.arm(at, kill)
        self.processes.start(env)
        space.create("Dataset", "rows", {"source": {"uri": "pvc://data/rows.jsonl"}})
        space.create("FineTuneJob", "run", self.spec())
        player = Player(space, self.result)
        end = time.monotonic() + GUARD_SECONDS
        while not player.step():
            if time.monotonic() > end:
                raise AssertionError(
                    f"killed at {at}: no end\n{space.get('FineTuneJob', 'run')}\n{self.processes.log()}"
                )
            if killed.is_set():
                killed.clear()
                self.processes.start(env)
            time.sleep(0.02)
        time.sleep(0.1)
        state, writes = end_state(space), list(self.proxy.writes)
        self.processes.kill()
        return state, writes


@pytest.fixture
def sweep(proxy, kube, namespace, spec, result, tmp_path, free_ports):
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{proxy.port}"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )

    def spaces() -> Any:
        name = f"kill-{uuid.uuid4().hex[:8]}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        kube.call("POST", "/api/v1/namespaces", body)
        space = type(namespace)(kube, name)
        space.create("ServiceAccount", "default")
        for claim in ("hone-store", "models", "data"):
            space.claim(claim)
        return space

    processes = Processes(str(tmp_path / "operator.log"), str(kubeconfig))
    yield Sweep(proxy, processes, spaces, spec, result, free_ports(2))
    processes.close()


@pytest.mark.parametrize(
    "points",
    [pytest.param(POINTS, id="in turn"), *[pytest.param((p,), id=p, marks=pytest.mark.long) for p in POINTS]],
)
def test_killed_at_any_write_the_end_is_the_same(sweep, points):
    """At every write once, at these moments in turn."""
    undisturbed, writes = sweep.life(None)
    assert undisturbed["training jobs"] == ["run-1", "run-2"]
    assert undisturbed["versions"] == ["tutor-v1"]
    assert undisturbed["phase"] == "Succeeded"
    number = 0
    while True:
        number += 1
        point = points[number % len(points)]
        state, done = sweep.life((number, point))
        if len(done) < number:
            break  # the life has no such write: the sweep is complete
        assert state == undisturbed, f"killed at write {number} ({point}): {done[number - 1]}"
        # The four objects of an attempt may be made again, what is decided anew may be told again, and the ledger may
        # be written once more or less, since its pace is that of the machine; a loop would show here.
        assert len(done) <= len(writes) + 10, f"killed at write {number} ({point}): {done}"
    assert number > 15
