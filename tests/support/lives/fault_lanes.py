"""Lives of a job next to each other under one operator, each in a namespace of its own with a fault of its own.

A life goes from a Dataset through staging, encoding, an attempt that is evicted, one that succeeds, the ModelVersion
and its verification to the deletion of the job. A hand plays Job controller, kubelet and garbage collector.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from support.cluster.fault_proxy import STAGES, FaultProxy, Lane
from support.cluster.hand import Namespace, fine_tune_job
from support.cluster.kube import Kube, NotFoundError
from support.cluster.operator_process import Operator
from support.lives.lives import LOOK_EVERY, RESULTS, Seen, component, look

Body = dict[str, Any]
GUARD = 600.0
"""Seconds; a guard against hanging on a busy machine, not an expectation."""
CANARY = "hf_CanaryCanaryCanary"
DIGEST = "5" * 64
ALL_RESULTS: dict[str, Body] = {
    **RESULTS,
    "materialize": {
        **RESULTS["materialize"],
        "digest": f"sha256:{DIGEST}",
        "path": f"datasets/{DIGEST}",
        "sizeBytes": 1000,
    },
    "fetch": {**RESULTS["fetch"], "commit": "c" * 40, "digest": "sha256:" + "6" * 64},
    "encode": {"kind": "Encode", "digest": "sha256:" + "7" * 64, "splits": 2, "rows": 10, "tokens": 345},
    "sweep": {"kind": "Sweep", "removed": 0, "sizeBytes": 0},
}
WATCHED = {"datasets", "finetunejobs"}
"""What a life begins with."""
REQUESTS_A_SECOND = 5
"""The most, to an API server that fails."""
SETTINGS = {"HONE_RESYNC_SECONDS": "5", "HONE_ENCODING__FROM_SIZE": "1"}
"""The operator looks often, so that what no watch delivers is found soon."""


@dataclass
class Life:
    """One job in one namespace."""

    space: Namespace
    lane: Lane
    finished: Body = field(default_factory=dict)
    """What was there when the model was verified."""
    end: Body = field(default_factory=dict)
    """What is left after the deletion of the job."""

    def begin(self) -> None:
        self.lane.now = STAGES[0]
        self.space.create("Dataset", "rows", {"source": {"uri": "pvc://data/rows.jsonl"}})
        self.space.create("FineTuneJob", "run", fine_tune_job(model={"uri": "hf://org/model"}))

    def step(self, seen: Seen) -> bool:
        """Every Job goes one step on; True when the life has come to its end."""
        if self.end:
            return True
        self._note(seen)
        if self.lane.awaits_a_list:  # or the life would be over before
            return False
        self._collect(seen)
        for job in seen["Job"]:
            try:
                self._play(job, seen)
            except NotFoundError:  # it went meanwhile
                continue
        if not self.finished and seen.succeeded() and not seen.names("Job", "verify", "sweep"):
            self.finished = finished_state(seen)
            self.lane.now = "delete"
            self.space.delete("FineTuneJob", "run")
        left = seen["FineTuneJob"] + [j for j in seen["Job"] if component(j) != "materialize"]
        if self.finished and not left and self.lane.over:
            self.end = remaining(seen)
        return bool(self.end)

    def _note(self, seen: Seen) -> None:
        training = [j["metadata"]["name"] for j in seen["Job"] if component(j) == "training" and not _ended(j)]
        if len(training) > 1:
            self.lane.wrong.append(f"two attempts at once: {training}")
        if len(seen["ModelVersion"]) > 1:
            self.lane.wrong.append("two ModelVersions")

    def _collect(self, seen: Seen) -> None:
        """As the garbage collector."""
        uids = {o["metadata"]["uid"] for kind in ("FineTuneJob", "Dataset", "ModelVersion", "Job") for o in seen[kind]}
        for kind in ("Job", "Pod", "ConfigMap", "Service"):
            for body in seen[kind]:
                owners = body["metadata"].get("ownerReferences", ())
                claimed = any(o["kind"] == "PersistentVolumeClaim" for o in owners)  # nobody deletes these here
                if owners and not claimed and not any(o["uid"] in uids for o in owners):
                    try:
                        live = self.space.get(kind, body["metadata"]["name"])
                        if live["metadata"]["uid"] == body["metadata"]["uid"] and not self._exists(owners):
                            self.space.delete(kind, body["metadata"]["name"])
                    except NotFoundError:
                        continue

    def _exists(self, owners: Sequence[Body]) -> bool:
        """The owner may be younger than what was listed."""
        for owner in owners:
            try:
                if self.space.get(owner["kind"], owner["name"])["metadata"]["uid"] == owner["uid"]:
                    return True
            except NotFoundError:
                continue
        return False

    def _play(self, job: Body, seen: Seen) -> None:
        name, uid, of = job["metadata"]["name"], job["metadata"]["uid"], component(job)
        if _ended(job) or job["spec"].get("suspend"):
            return
        pods = [p for p in seen["Pod"] if p["metadata"]["ownerReferences"][0]["uid"] == uid]
        if not pods:
            self.space.start_pods(name)
        elif name == "run-1":
            taken = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            words = {"failure": {"code": "Interrupted", "message": f"stopped with {CANARY}", "rank": 0}}
            self.space.end_pod(pods[0]["metadata"]["name"], 75, words, conditions=[taken])
            self.space.end_job(name, "Failed", "PodFailurePolicy", "DisruptionTarget")
        else:
            for pod in pods:
                rank = pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
                self.space.end_pod(pod["metadata"]["name"], 0, {"result": ALL_RESULTS[of]} if rank == "0" else None)
            self.space.end_job(name, "Complete")


def _ended(job: Body) -> bool:
    return any(c["type"] in ("Complete", "Failed") for c in job["status"].get("conditions") or ())


def conditions(body: Body) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in body["status"].get("conditions", ())}


def finished_state(seen: Seen) -> Body:
    """What must not depend on any fault: names without what is random, no times."""
    (job,), (version,), (rows,) = seen["FineTuneJob"], seen["ModelVersion"], seen["Dataset"]
    ledgers = {c["metadata"]["name"]: c for c in seen["ConfigMap"]}
    return {
        # The Job that encoded the rows may go once the run has ended and it is a minute old; a busy machine gets there.
        "jobs": sorted(f"{component(j)} {_attempt(j)}" for j in seen["Job"] if component(j) != "encode"),
        "services": sorted(seen.names("Service")),
        "plans": sorted(n.rsplit("-", 1)[0] for n in seen.names("ConfigMap") if n.startswith("run-")),
        "version": version["metadata"]["name"],
        "last number": json.loads(ledgers["hone-model-versions"]["data"]["tutor"])["last"],
        "of this job": version["spec"]["lineage"]["job"]["uid"] == job["metadata"]["uid"],
        "model": (conditions(version), "verifiedAt" in version["status"]),
        "artifacts": [(a["format"], a["digest"]) for a in version["spec"]["artifacts"]],
        "attempts": [(a["number"], a["jobName"], a["outcome"]) for a in job["status"]["attempts"]],
        "phase": job["status"]["phase"],
        "conditions": conditions(job),
        "up to date": job["status"]["observedGeneration"] == job["metadata"]["generation"],
        "rows": (rows["status"]["digest"], conditions(rows)),
    }


def _attempt(job: Body) -> str:
    return job["metadata"]["name"] if component(job) == "training" else ""


def remaining(seen: Seen) -> Body:
    """What is left when the job was deleted."""
    return {
        "jobs": sorted(component(j) for j in seen["Job"]),
        "services": seen.names("Service"),
        "plans": [n for n in seen.names("ConfigMap") if n.startswith("run-")],
        "models": [(v["metadata"]["name"], conditions(v)) for v in seen["ModelVersion"]],
        "rows": [conditions(d) for d in seen["Dataset"]],
    }


def new_space(kube: Kube, prefix: str) -> Namespace:
    """A fresh namespace with what every tenant has."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    kube.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    space = Namespace(kube, name)
    space.create("ServiceAccount", "default")
    for claim in ("hone-store", "models", "data"):
        space.claim(claim)
    return space


def live(
    kube: Kube,
    proxy: FaultProxy,
    folder: Path,
    lanes: Sequence[Lane],
    meanwhile: Callable[[Operator, Sequence[Life], Mapping[str, Seen]], None] = lambda *_: None,
    operate: type[Operator] = Operator,
) -> tuple[list[Life], str]:
    """The lives of these lanes, from the first to the last write, and the operator's log.

    A life that does not come to its end has no `end`. `meanwhile` is called after each step of all lives.
    """
    lives = [Life(new_space(kube, "fault"), lane) for lane in lanes]
    for life in lives:
        life.lane.canary = CANARY
    proxy.lanes = {life.space.name: life.lane for life in lives}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(proxy.kubeconfig()))
    spaces = json.dumps([life.space.name for life in lives])
    operator = operate(kubeconfig, folder, {"HONE_WATCH_NAMESPACES": spaces, **SETTINGS}).start()
    try:
        until = time.monotonic() + GUARD
        # What an operator lists comes by no event: a fault of events would not happen.
        while not (operator.ready() and all(life.lane.open >= WATCHED for life in lives)):
            assert time.monotonic() < until, operator.log()
            time.sleep(0.2)
        for life in lives:
            life.begin()
        end = time.monotonic() + GUARD
        while time.monotonic() < end and operator.alive():
            world = look(kube)
            if all([life.step(world[life.space.name]) for life in lives]):
                break
            meanwhile(operator, lives, world)
            time.sleep(LOOK_EVERY)
    finally:
        if operator.alive():
            operator.kill()
    return lives, "".join(log.read_text() for log in sorted(folder.rglob("operator.log")))


def undisturbed(kube: Kube, proxy: FaultProxy, folder: Path) -> list[Life]:
    """Two lives without a fault, with which others are compared."""
    lives, log = live(kube, proxy, folder, [Lane(), Lane()])
    assert [check(life, lives) for life in lives] == [[], []], log[-4000:]
    return lives


def check(life: Life, reference: list[Life]) -> list[str]:
    """What is not as it must be in the end."""
    lane = life.lane
    if lane.fault and not lane.injected:
        return ["the fault did not happen"]
    if not life.end:
        return [f"no end; writes: {lane.writes[-8:]}", *lane.wrong]
    wrong = list(dict.fromkeys(lane.wrong))
    for what, expected in (("finished", reference[0].finished), ("end", reference[0].end)):
        seen = getattr(life, what)
        wrong += [f"{what}: {k} is {seen[k]}, not {v}" for k, v in expected.items() if seen[k] != v]
    usual = max(len(r.lane.writes) for r in reference)
    if len(lane.writes) > usual * 1.2 + 5 * lane.injected:
        wrong.append(f"{len(lane.writes)} writes, {usual} without a fault: {lane.writes}")
    if lane.fault and lane.fault.seconds and len(lane.requests) > REQUESTS_A_SECOND * lane.fault.seconds:
        wrong.append(f"{len(lane.requests)} requests in {lane.fault.seconds} s to an API server that fails")
    return wrong
