"""kill -9 at every write: whatever the moment, the same end state, one Job an attempt, one ModelVersion.

A proxy between operator and API server numbers the operator's writes. For write n it kills the operator before the
write is forwarded, after it was carried out but before the answer, or after the answer; then the operator is started
again. The runs go on until there is no n-th write any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from fault_lanes import new_space
from fault_proxy import Fault, FaultProxy, Lane
from kube import GUARD_SECONDS

pytestmark = pytest.mark.apiserver
Point = Literal["before", "carried out", "answered"]
POINTS: tuple[Point, ...] = ("before", "carried out", "answered")
DIGEST = "sha256:" + "0" * 64


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
    proxy = FaultProxy.of(kube)
    yield proxy
    proxy.stop()


@dataclass
class Sweep:
    """One life of a job after another, each with another moment of death."""

    proxy: FaultProxy
    processes: Processes
    spaces: Any
    spec: Any
    result: dict[str, Any]
    ports: list[int]

    def life(self, at: tuple[int, Point] | None, times: int = 1) -> tuple[dict[str, Any], list[str]]:
        """(end state, writes) of a life in which the operator dies at `at`, and so often at the writes that follow."""
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

        number, point = at or (0, "before")
        lane = Lane(Fault(f"kill {point}", times=times), write=number)
        self.proxy.lanes, self.proxy.kill = {space.name: lane}, kill
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
        state, writes = end_state(space), list(lane.writes)
        self.processes.kill()
        return state, writes


@pytest.fixture
def sweep(proxy, kube, spec, result, tmp_path, free_ports):
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(proxy.kubeconfig()))

    processes = Processes(str(tmp_path / "operator.log"), str(kubeconfig))
    yield Sweep(proxy, processes, lambda: new_space(kube, "kill"), spec, result, free_ports(2))
    processes.close()


@pytest.mark.faults("O1")
@pytest.mark.parametrize(
    "points",
    [pytest.param(POINTS, id="in turn"), *[pytest.param((p,), id=p, marks=pytest.mark.long) for p in POINTS]],
)
def test_killed_at_any_write_the_end_is_the_same(sweep, points, record_property):
    """At every write once, at these moments in turn."""
    whole(sweep, points, 1, partial(record_property, "faults"))


@pytest.mark.long
@pytest.mark.faults("O2")
def test_killed_at_any_write_and_at_the_next_the_end_is_the_same(sweep, record_property):
    whole(sweep, POINTS, 2, partial(record_property, "faults"))


def whole(sweep, points, times, record):
    """Every life of the sweep; `record` is called with what was tried."""
    undisturbed, writes = sweep.life(None)
    assert undisturbed["training jobs"] == ["run-1", "run-2"]
    assert undisturbed["versions"] == ["tutor-v1"]
    assert undisturbed["phase"] == "Succeeded"
    tried = []
    number = 0
    while True:
        number += 1
        point = points[number % len(points)]
        state, done = sweep.life((number, point), times)
        if len(done) < number:
            break  # the life has no such write: the sweep is complete
        tried.append([f"O{times}", f"write {number}, {point}", state == undisturbed])
        record(tried)
        assert state == undisturbed, f"killed at write {number} ({point}): {done[number - 1]}"
        # The four objects of an attempt may be made again, what is decided anew may be told again, and the ledger may
        # be written once more or less, since its pace is that of the machine; a loop would show here.
        assert len(done) <= len(writes) + 10 * times, f"killed at write {number} ({point}): {done}"
    assert number > 15
