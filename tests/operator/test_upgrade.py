"""Objects of an operator of months ago, under the operator of today: what runs goes on, and what has ended stays.

`objects_of_an_earlier_operator.json` is what the operator of commit 09e2d70 wrote at each stage of a run.
"""

from __future__ import annotations

import copy
import itertools
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lives import RESULTS
from memory_cluster import Body, MemoryCluster

from hone_api.plan import parse_plan
from hone_operator.cache import Cache
from hone_operator.controllers import Controllers
from hone_operator.desired import names
from hone_operator.desired.platform import Platform
from hone_operator.reconcile.conditions import is_true
from hone_operator.routing import Key

pytestmark = pytest.mark.pure
RECORDED = json.loads((Path(__file__).parent / "objects_of_an_earlier_operator.json").read_text())
ROUNDS = 12


class World:
    """The namespace at a stage, with a hand that plays Job controller and kubelet."""

    def __init__(self, stage: str):
        recorded = RECORDED["stages"][stage]
        self.now = datetime.fromisoformat(recorded["at"]) + timedelta(minutes=1)
        self.cluster = MemoryCluster(lambda: self.now.strftime("%Y-%m-%dT%H:%M:%SZ"))
        self.cluster._count = itertools.count(1000)
        for body in copy.deepcopy([RECORDED["objects"][number] for number in recorded["objects"]]):
            self.cluster.objects[body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]] = body
        self.errors: list[BaseException] = []
        self.cache = Cache()
        self.controllers = Controllers(
            self.cluster,  # type: ignore[arg-type]
            self.cache,
            Platform("trainer:2"),
            now=lambda: self.now,
            on_internal_error=lambda key, error: self.errors.append(error),
        )

    @property
    def job(self) -> Body:
        return self.cluster.objects["FineTuneJob", "team", "run"]

    def work(self, component: str) -> list[str]:
        """Names of the Jobs of this kind of work."""
        jobs = self.cluster.of("Job")
        return [j["metadata"]["name"] for j in jobs if j["metadata"]["labels"][names.COMPONENT] == component]

    async def live(self, rounds: int = ROUNDS) -> None:
        """The operator looks at every object, and every pod and Job goes a step on, again and again."""
        for _ in range(rounds):
            self.cluster.tell(self.cache)
            for kind in ("Dataset", "FineTuneJob", "ModelVersion"):
                for body in self.cluster.of(kind):
                    await self.controllers.process(Key(kind, "team", body["metadata"]["name"]))
                    self.cluster.tell(self.cache)
            self.play()
            self.now += timedelta(minutes=1)

    def play(self) -> None:
        for pod in self.cluster.of("Pod"):
            self._play_pod(pod)
        for job in self.cluster.of("Job"):
            if not is_true(job, "Complete") and not job["spec"].get("suspend"):
                self._play_job(job)

    def _play_job(self, job: Body) -> None:
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        pods = [p for p in self.cluster.of("Pod") if p["metadata"]["ownerReferences"][0]["uid"] == uid]
        for rank in range(0 if pods else job["spec"].get("completions") or 1):
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}
            labels = job["spec"]["template"]["metadata"]["labels"] | {
                "batch.kubernetes.io/job-name": name,
                "batch.kubernetes.io/job-completion-index": str(rank),
            }
            meta = {"name": f"{uid}-{rank}", "namespace": "team", "labels": labels, "ownerReferences": [owner]}
            pod = self.cluster.add({"kind": "Pod", "metadata": meta, "spec": job["spec"]["template"]["spec"]})
            self._status(pod, "Pending")
        if pods and all(p["status"]["phase"] == "Succeeded" for p in pods):
            time = self.cluster._now()
            job["status"]["conditions"] = [{"type": "Complete", "status": "True", "lastTransitionTime": time}]
            self.cluster.touch(job, "status")

    def _play_pod(self, pod: Body) -> None:
        labels, phase = pod["metadata"]["labels"], pod["status"]["phase"]
        if phase == "Pending":
            self._status(pod, "Running")
        elif phase == "Running":
            first = labels["batch.kubernetes.io/job-completion-index"] == "0"
            message = json.dumps({"result": RESULTS[labels[names.COMPONENT]]}) if first else ""
            ended = {"exitCode": 0, "finishedAt": self.cluster._now(), "message": message}
            self._status(pod, "Succeeded", containerStatuses=[{"name": "trainer", "state": {"terminated": ended}}])

    def _status(self, pod: Body, phase: str, **more: Any) -> None:
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.cluster._now()}
        pod["status"] = {"phase": phase, "conditions": [scheduled], **more}
        self.cluster.touch(pod, "status")


@pytest.mark.parametrize("stage", RECORDED["stages"])
async def test_a_run_of_an_earlier_operator_ends_as_if_nobody_had_upgraded(stage: str) -> None:
    world = World(stage)
    begun = {c: world.work(c) for c in ("materialize", "training", "verify")}
    if stage == "suspended":
        await world.live(2)
        world.job["spec"]["suspend"] = False
        world.job["metadata"]["generation"] += 1
        world.cluster.touch(world.job, "spec")
    await world.live()

    assert world.errors == []
    attempts = [(a["number"], a["outcome"]) for a in world.job["status"]["attempts"]]
    assert attempts == [(1, "Succeeded")]
    assert world.work("training") == ["run-1"]
    for component, names_ in begun.items():
        assert world.work(component)[: len(names_)] == names_, "nothing was made again"
        assert len(world.work(component)) == 1
    assert is_true(world.job, "Succeeded")
    (version,) = world.cluster.of("ModelVersion")
    assert version["metadata"]["name"] == world.job["status"]["modelVersionName"] == "tutor-v1"
    assert is_true(version, "Ready")
    assert [b["metadata"]["name"] for kind in ("Service", "NetworkPolicy") for b in world.cluster.of(kind)] == []

    written = len(world.cluster.writes)
    await world.live(2)
    assert world.cluster.writes[written:] == [], "nothing is left to do"


def test_plans_of_an_earlier_operator_are_read() -> None:
    """By a trainer of today, where the tag of the image has moved on."""
    configs = [b for b in RECORDED["objects"] if b["kind"] == "ConfigMap" and "plan.json" in b["data"]]
    kinds = {parse_plan(config["data"]["plan.json"]).kind for config in configs}
    assert kinds == {"Materialize", "Fetch", "Training", "Verify"}
