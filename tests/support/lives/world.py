"""The life of a Dataset and a FineTuneJob in memory: the operator's controllers, and a hand for all else.

`objects_of_an_earlier_operator.json` is what the operator of commit 09e2d70 wrote at each stage of a run.
"""

from __future__ import annotations

import copy
import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.cluster.memory_cluster import Body, MemoryCluster
from support.cluster.platforms import platform_with
from support.lives.lives import RESULTS

from hone_api.plan import SweepPlan
from hone_operator.controllers import Controllers
from hone_operator.desired.core import names
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key
from hone_operator.reconcile.core.conditions import is_true

RECORDED = json.loads((Path(__file__).parents[2] / "operator/objects_of_an_earlier_operator.json").read_text())
ROUNDS = 12
APPLIED = ("PersistentVolumeClaim", "Dataset", "FineTuneJob")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
RUN = {"model": {"uri": "pvc://models/base"}, "datasets": [{"name": "rows"}], "output": {"modelName": "tutor"}}
INDEX = "batch.kubernetes.io/job-completion-index"


class MemoryWorld:
    """The namespace `team` on an API server in memory, with a hand that plays Job controller and kubelet."""

    def __init__(self, now: datetime = NOW, image: str = "trainer:1", **settings: Any) -> None:
        self.now = now
        self.platform = platform_with(image, **settings)
        self.cluster = MemoryCluster(self.time)
        self.errors: list[BaseException] = []
        self.start_operator()

    def time(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    # -- objects ---------------------------------------------------------------------------------

    def add(self, kind: str, name: str, spec: Body, status: Body | None = None, **labels: str) -> Body:
        meta = {"name": name, "namespace": "team", "labels": labels}
        return self.cluster.add(
            {"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": spec, "status": status or {}}
        )

    def claims(self, *claims: str) -> None:
        for name in claims:
            self.add("PersistentVolumeClaim", name, {"accessModes": ["ReadWriteMany"]}, {"phase": "Bound"})

    def rows(self) -> None:
        """A Dataset that is Ready."""
        splits = [{"name": "train", "rows": 9}, {"name": "validation", "rows": 9}]
        status = {"conditions": [self.condition("Ready")], "digest": DIGEST, "observedGeneration": 1, "splits": splits}
        self.add("Dataset", "rows", {"source": {"uri": "pvc://data/rows.jsonl"}}, status)

    def condition(self, type_: str) -> Body:
        return {"type": type_, "status": "True", "reason": "x", "message": "", "lastTransitionTime": self.time()}

    @property
    def job(self) -> Body:
        return self.cluster.objects["FineTuneJob", "team", "run"]

    def jobs(self, component: str) -> list[Body]:
        """The Jobs of this kind of work."""
        return [j for j in self.cluster.of("Job") if j["metadata"]["labels"][names.COMPONENT] == component]

    def work(self, component: str) -> list[str]:
        """The names of these Jobs."""
        return [job["metadata"]["name"] for job in self.jobs(component)]

    def plan(self, pod_spec: Body) -> tuple[str, Body | None]:
        """The name of the ConfigMap that a pod mounts, and the ConfigMap if it exists."""
        (name,) = (v["configMap"]["name"] for v in pod_spec["volumes"] if "configMap" in v)
        return name, self.cluster.objects.get(("ConfigMap", "team", name))

    def sweep_plan(self, job: Body) -> SweepPlan:
        """What this Job of a sweep is to remove."""
        _, config = self.plan(job["spec"]["template"]["spec"])
        assert config
        return SweepPlan.model_validate_json(config["data"]["plan.json"])

    # -- the operator ----------------------------------------------------------------------------

    def start_operator(self) -> None:
        """A new process: it knows what it lists."""
        self.cache = Cache()
        self.controllers = Controllers(
            self.cluster,
            self.cache,
            self.platform,
            now=lambda: self.now,
            on_internal_error=lambda key, error: self.errors.append(error),
        )

    def tell(self) -> None:
        """The watches deliver everything."""
        self.cluster.tell(self.cache)

    async def process(self, key: Key) -> None:
        """The operator looks at one object."""
        self.tell()
        await self.controllers.process(key)
        self.tell()

    async def reconcile(self) -> None:
        """The operator looks at every object once."""
        self.tell()
        for kind in ("Dataset", "FineTuneJob", "ModelVersion", "Model"):
            for body in self.cluster.of(kind):
                await self.controllers.process(Key(kind, body["metadata"]["namespace"], body["metadata"]["name"]))
                self.tell()

    async def live(self, rounds: int = ROUNDS) -> None:
        """The operator looks at every object, and every pod and Job goes a step on, again and again."""
        for _ in range(rounds):
            await self.reconcile()
            self.play()
            self.now += timedelta(minutes=1)

    # -- Job controller and kubelet --------------------------------------------------------------

    def play(self) -> None:
        """Every pod and every Job goes one step on."""
        for pod in self.cluster.of("Pod"):
            self.play_pod(pod)
        for job in self.cluster.of("Job"):
            if job["spec"].get("suspend"):
                job["status"].pop("startTime", None)
            elif not is_true(job, "Complete") and not is_true(job, "Failed"):
                self._play_job(job)

    def _play_job(self, job: Body) -> None:
        uid = job["metadata"]["uid"]
        pods = [p for p in self.cluster.of("Pod") if p["metadata"]["ownerReferences"][0]["uid"] == uid]
        if not pods and job["status"].get("startTime"):
            self.end_job(job, "Failed")  # its pod was deleted; it is tried once
        elif not pods:
            job["status"]["startTime"] = self.time()
            for rank in range(job["spec"].get("completions") or 1):
                self._add_pod(job, rank)
            self.cluster.touch(job, "status")
        elif (ended := {p["status"]["phase"] for p in pods}) <= {"Succeeded", "Failed"}:
            self.end_job(job, "Failed" if "Failed" in ended else "Complete")

    def _add_pod(self, job: Body, rank: int) -> None:
        meta, template = job["metadata"], job["spec"]["template"]
        labels = {"batch.kubernetes.io/job-name": meta["name"], INDEX: str(rank)}
        pod_meta = {
            "name": f"{meta['uid']}-{rank}",
            "namespace": meta["namespace"],
            "labels": template["metadata"]["labels"] | labels,
            "ownerReferences": [names.owner_reference({**job, "kind": "Job"})],
        }
        self.pod_status(self.cluster.add({"kind": "Pod", "metadata": pod_meta, "spec": template["spec"]}), "Pending")

    def end_job(self, job: Body, type_: str) -> None:
        job["status"]["conditions"] = [{"type": type_, "status": "True", "lastTransitionTime": self.time()}]
        self.cluster.touch(job, "status")

    def play_pod(self, pod: Body) -> None:
        labels, phase = pod["metadata"]["labels"], pod["status"]["phase"]
        if phase == "Pending":
            self.pod_status(pod, "Running")
        elif phase == "Running":
            self.end_pod(pod, {"result": RESULTS[labels[names.COMPONENT]]} if labels[INDEX] == "0" else None)

    def end_pod(self, pod: Body, outcome: Body | None) -> None:
        """Its container ends well, and leaves this."""
        message = json.dumps(outcome) if outcome else ""
        ended = {"exitCode": 0, "finishedAt": self.time(), "message": message}
        self.pod_status(pod, "Succeeded", containerStatuses=[{"name": "trainer", "state": {"terminated": ended}}])

    def pod_status(self, pod: Body, phase: str, **more: Any) -> None:
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.time()}
        pod["status"] = {"phase": phase, "conditions": [scheduled], **more}
        self.cluster.touch(pod, "status")


class World(MemoryWorld):
    """A namespace at a recorded stage of a run."""

    def __init__(self, stage: str):
        recorded = RECORDED["stages"][stage]
        super().__init__(datetime.fromisoformat(recorded["at"]) + timedelta(minutes=1), "trainer:2")
        self.cluster._count = itertools.count(1000)
        for body in copy.deepcopy([RECORDED["objects"][number] for number in recorded["objects"]]):
            self.cluster.objects[body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]] = body

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
