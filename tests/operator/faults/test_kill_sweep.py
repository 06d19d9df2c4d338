"""kill -9 at every write: whatever the moment, the same end state, one Job an attempt, one ModelVersion.

A proxy between operator and API server numbers the operator's writes. For write n it kills the operator before the
write is forwarded, after it was carried out but before the answer, or after the answer; then the operator is started
again. The runs go on until there is no n-th write any more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import yaml
from support.cluster.fault_proxy import FaultProxy
from support.lives.fault_lanes import new_space
from support.lives.killing import POINTS, Processes, Sweep

pytestmark = pytest.mark.apiserver
DIGEST = "sha256:" + "0" * 64


@dataclass
class Run:
    """The life of a job: it looks at what is there and brings it one step on."""

    space: Any
    spec: Any
    result: dict[str, Any]

    def begin(self) -> None:
        self.space.create("Dataset", "rows", {"source": {"uri": "pvc://data/rows.jsonl"}})
        self.space.create("FineTuneJob", "run", self.spec())

    def state(self) -> dict[str, Any]:
        return end_state(self.space)

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


@pytest.fixture
def sweep(proxy, kube, spec, result, tmp_path, free_ports):
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(proxy.kubeconfig()))

    processes = Processes(str(tmp_path / "operator.log"), str(kubeconfig))
    yield Sweep(
        proxy, processes, lambda: new_space(kube, "kill"), lambda space: Run(space, spec, result), free_ports(2), {}
    )
    processes.close()


@pytest.mark.faults("O1")
@pytest.mark.parametrize(
    ("points", "every"),
    [
        pytest.param(POINTS, 2, id="in turn"),
        *[pytest.param((p,), 1, id=p, marks=pytest.mark.long) for p in POINTS],
    ],
)
def test_killed_at_any_write_the_end_is_the_same(sweep, points, every, record_property):
    """At every write or every second one, at these moments in turn."""
    whole(sweep, points, 1, partial(record_property, "faults"), every)


@pytest.mark.long
@pytest.mark.faults("O2")
def test_killed_at_any_write_and_at_the_next_the_end_is_the_same(sweep, record_property):
    whole(sweep, POINTS, 2, partial(record_property, "faults"))


def whole(sweep, points, times, record, every=1):
    """The lives of the sweep that are killed at every so many writes; `record` is called with what was tried."""
    undisturbed, writes = sweep.life(None)
    assert undisturbed["training jobs"] == ["run-1", "run-2"]
    assert undisturbed["versions"] == ["tutor-v1"]
    assert undisturbed["phase"] == "Succeeded"
    tried = []
    number = 0
    while True:
        number += every
        point = points[number // every % len(points)]
        state, done = sweep.life((number, point), times)
        if len(done) < number:
            break  # the life has no such write: the sweep is complete
        tried.append([f"O{times}", f"write {number}, {point}", state == undisturbed])
        record(tried)
        assert state == undisturbed, f"killed at write {number} ({point}): {done[number - 1]}"
        # The four objects of an attempt may be made again, what is decided again may be reported again, and the ledger
        # may be written one time more or less, since its pace is that of the machine; a loop would show here.
        assert len(done) <= len(writes) + 10 * times, f"killed at write {number} ({point}): {done}"
    assert number > 15
