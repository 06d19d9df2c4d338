"""The life of a Dataset and a FineTuneJob in memory: the operator's controllers, and a hand for all else.

`objects_of_an_earlier_operator.json` is what the operator of commit 09e2d70 wrote at each stage of a run.
"""

from __future__ import annotations

import copy
import itertools
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from support.cluster.memory_cluster import Body, MemoryCluster
from support.cluster.platforms import platform_with
from support.lives.lives import RESULTS

from hone_operator.controllers import Controllers
from hone_operator.desired.core import names
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key
from hone_operator.reconcile.core.conditions import is_true

RECORDED = json.loads((Path(__file__).parents[2] / "operator/objects_of_an_earlier_operator.json").read_text())
ROUNDS = 12
APPLIED = ("PersistentVolumeClaim", "Dataset", "FineTuneJob")


class World:
    """A namespace in memory, at a recorded stage of a run, with a hand that plays Job controller and kubelet."""

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
            self.cluster,
            self.cache,
            platform_with("trainer:2"),
            now=lambda: self.now,
            on_internal_error=lambda key, error: self.errors.append(error),
        )

    @classmethod
    def new(cls) -> World:
        """Before the operator has seen any of it: claims, a Dataset and a FineTuneJob as they were applied."""
        world = cls("fetching")
        for body in [b for b in world.cluster.objects.values() if b["kind"] not in APPLIED]:
            world.cluster.remove(body)
        for kind in ("Dataset", "FineTuneJob"):
            for body in world.cluster.of(kind):
                body.pop("status")
        return world

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
            for kind in ("Dataset", "FineTuneJob", "ModelVersion", "Model"):
                for body in self.cluster.of(kind):
                    await self.controllers.process(Key(kind, body["metadata"]["namespace"], body["metadata"]["name"]))
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
            meta = {
                "name": f"{uid}-{rank}",
                "namespace": job["metadata"]["namespace"],
                "labels": labels,
                "ownerReferences": [owner],
            }
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
