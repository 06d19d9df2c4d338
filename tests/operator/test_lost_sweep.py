"""Every subset of what can be lost, at every phase of a job's life: nothing that is finished ever changes.

Controllers, cache and decisions are the operator's own, on an API server in memory; a hand plays Job controller,
kubelet and trainer, with the trainer's own rules of when a run has finished and where it may write.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.cluster.memory_cluster import Body, MemoryCluster
from support.cluster.platforms import platform_with
from support.lives.lives import RESULTS

from hone_api.contract.plan_reading import parse_plan
from hone_api.contract.report import TrainingResult
from hone_api.contract.termination import TerminationMessage
from hone_api.kinds.modelversion import Artifact
from hone_api.plan import TrainingPlan
from hone_operator.controllers import Controllers
from hone_operator.desired.core import names
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key
from hone_operator.reconcile.core.conditions import is_true
from hone_trainer.store import finished, manifest

pytestmark = pytest.mark.pure
STEPS = 4
PHASES = (
    "accepted",
    "materialising",
    "fetching",
    "pending",
    "running",
    "exporting",
    "exported",
    "ended",
    "recorded",
    "finished",
    "verified",
)
"""exporting: the manifest of the adapter is written, the result is not; exported: the pod has not ended yet; ended: the
Job is Complete, and the operator has not looked; recorded: the ModelVersion exists, and the status does not say so."""
LOSSES = ("status", "Job", "pods", "ConfigMaps", "ModelVersion")
ROUNDS = 60
QUIET = 7
"""Rounds of a minute: longer than the longest pause between attempts."""


@dataclass
class World:
    """One namespace with one job, from its creation to its end."""

    store: Path
    now: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    trained: list[int] = field(default_factory=list)
    """Every step that any pod has trained."""
    wrong: list[str] = field(default_factory=list)
    recorded: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """Files of every model that was ever recorded, with content and time of change."""
    late: tuple[str, ...] = ()
    """Kinds whose watch delivers nothing."""

    def __post_init__(self) -> None:
        self.cluster = MemoryCluster(self.time)
        for claim in ("data", "hone-store"):
            self._add("PersistentVolumeClaim", claim, {"accessModes": ["ReadWriteMany"]}, {"phase": "Bound"})
        self._add("Dataset", "rows", {"source": {"uri": "pvc://data/rows.jsonl"}})
        spec = {"model": {"uri": "hf://org/model"}, "datasets": [{"name": "rows"}], "output": {"modelName": "tutor"}}
        self._add("FineTuneJob", "run", spec)
        self.start_operator()

    def _add(self, kind: str, name: str, spec: Body, status: Body | None = None) -> None:
        meta = {"name": name, "namespace": "team"}
        self.cluster.add({"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": spec, "status": status or {}})

    def time(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def start_operator(self) -> None:
        """A new process: it knows what it lists."""
        self.cache = Cache()
        self.controllers = Controllers(self.cluster, self.cache, platform_with("trainer:1"), now=lambda: self.now)

    @property
    def job(self) -> Body:
        return self.cluster.objects["FineTuneJob", "team", "run"]

    def models(self) -> list[Body]:
        return self.cluster.of("ModelVersion")

    def work(self, component: str) -> Body | None:
        """The newest Job of this kind of work."""
        jobs = [j for j in self.cluster.of("Job") if j["metadata"]["labels"][names.COMPONENT] == component]
        return jobs[-1] if jobs else None

    # -- the operator ----------------------------------------------------------------------------

    async def reconcile(self) -> None:
        """It looks at every object once."""
        self.cluster.tell(self.cache, *self.late)
        for kind in ("Dataset", "FineTuneJob", "ModelVersion", "Model"):
            for body in self.cluster.of(kind):
                await self.controllers.process(Key(kind, "team", body["metadata"]["name"]))
                self.cluster.tell(self.cache, *self.late)
                self._watch_models()

    def _watch_models(self) -> None:
        uid = self.job["metadata"]["uid"]
        if sum(v["spec"]["lineage"]["job"]["uid"] == uid for v in self.models()) > 1:
            self.wrong.append("two ModelVersions of one run")
        for version in self.models():
            for artifact in version["spec"]["artifacts"]:
                folder = self.store / artifact["uri"].removeprefix("pvc://hone-store/")
                for file in folder.rglob("*"):
                    self.recorded.setdefault(str(file), (file.read_bytes(), file.stat().st_mtime_ns))
                if manifest.digest_of(folder) != artifact["digest"]:
                    self.wrong.append("the recorded digest is not the folder's")

    # -- Job controller, kubelet, trainer --------------------------------------------------------

    def play(self) -> None:
        """Every pod and every Job goes one step on."""
        for pod in self.cluster.of("Pod"):
            self._play_pod(pod)
        for job in self.cluster.of("Job"):
            if not is_true(job, "Complete") and not is_true(job, "Failed"):
                self._play_job(job)

    def _play_job(self, job: Body) -> None:
        pods = [
            p for p in self.cluster.of("Pod") if p["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
        ]
        if not pods and job["status"].get("startTime"):
            self._end(job, "Failed")  # its pod was deleted; it is tried once
        elif not pods:
            job["status"]["startTime"] = self.time()
            labels = {
                **job["spec"]["template"]["metadata"]["labels"],
                "batch.kubernetes.io/job-name": job["metadata"]["name"],
            }
            owner = names.owner_reference({**job, "kind": "Job"})
            meta = {
                "name": f"{job['metadata']['uid']}-0",
                "namespace": "team",
                "labels": labels,
                "ownerReferences": [owner],
            }
            pod = {"kind": "Pod", "metadata": meta, "spec": job["spec"]["template"]["spec"], "phase": "Pending"}
            self._status(self.cluster.add(pod), "Pending")
            self.cluster.touch(job, "status")
        elif pods[0]["status"]["phase"] in ("Succeeded", "Failed"):
            self._end(job, "Complete" if pods[0]["status"]["phase"] == "Succeeded" else "Failed")

    def _end(self, job: Body, type_: str) -> None:
        job["status"]["conditions"] = [{"type": type_, "status": "True", "lastTransitionTime": self.time()}]
        self.cluster.touch(job, "status")

    def _play_pod(self, pod: Body) -> None:
        work, phase = pod["metadata"]["labels"][names.COMPONENT], pod["phase"]
        plan = self._plan(pod)
        if phase == "Pending":
            if plan is None:
                (name,) = (v["configMap"]["name"] for v in pod["spec"]["volumes"] if v["name"] == "plan")
                words = f'MountVolume.SetUp failed for volume "plan" : configmap "{name}" not found'
                event = {"reason": "FailedMount", "message": words, "lastTimestamp": self.time()}
                self.cluster.events[pod["metadata"]["uid"]] = event
                return
            if work == "training":
                pod["plan"] = plan
            pod["phase"] = "Running"
            self._status(pod, "Running")
        elif phase == "Running" and work == "training":
            pod["phase"] = self._train(pod["plan"], pod)
        elif phase == "Exporting":
            folder = finished.begin(pod["plan"])
            pod["outcome"] = self._export(pod["plan"], folder)
            pod["phase"] = "Exported"
        elif phase in ("Running", "Exported"):
            result = pod.get("outcome") or {"result": RESULTS[work]}
            terminated = {"exitCode": 0, "finishedAt": self.time(), "message": json.dumps(result)}
            pod["phase"] = "Ended"
            self._status(pod, "Succeeded", containerStatuses=[{"name": "trainer", "state": {"terminated": terminated}}])

    def _status(self, pod: Body, phase: str, **more: Any) -> None:
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.time()}
        pod["status"] = {"phase": phase, "conditions": [scheduled], **more}
        self.cluster.touch(pod, "status")

    def _plan(self, pod: Body) -> TrainingPlan | str | None:
        (name,) = (v["configMap"]["name"] for v in pod["spec"]["volumes"] if v["name"] == "plan")
        config = self.cluster.objects.get(("ConfigMap", "team", name))
        if config is None or pod["metadata"]["labels"][names.COMPONENT] != "training":
            return None if config is None else name
        plan = parse_plan(config["data"]["plan.json"].replace("/store/", f"{self.store}/"))
        assert isinstance(plan, TrainingPlan)
        return plan

    def _train(self, plan: TrainingPlan, pod: Body) -> str:
        """As `launch.run`: the phase of the pod afterwards."""
        done = finished.result(plan)
        if done is not None:
            pod["outcome"] = {"result": done.to_json()}
            return "Exported"
        finished.place(plan)
        folder = Path(plan.work_path) / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        reached = len(list(folder.iterdir()))
        if reached == STEPS:
            self._adapter(plan, finished.begin(plan))
            return "Exporting"
        if self.recorded:
            self.wrong.append(f"step {reached + 1} was trained after the model was recorded")
        (folder / f"step-{reached + 1}").write_text("")
        self.trained.append(reached + 1)
        return "Running"

    def _adapter(self, plan: TrainingPlan, folder: Path) -> str:
        adapter = folder / "adapter"
        adapter.mkdir(exist_ok=True)
        (adapter / "weights").write_text(f"attempt {plan.attempt} of {plan.work_path}")
        return manifest.write(adapter)

    def _export(self, plan: TrainingPlan, folder: Path) -> Body:
        digest = self._adapter(plan, folder)
        uri = (folder / "adapter").relative_to(plan.output_path).as_posix()
        artifact = Artifact(format="Adapter", uri=uri, digest=digest, size_bytes=7)
        result = TrainingResult(artifacts=[artifact], numbers=[], steps=STEPS)
        finished.keep(plan, TerminationMessage(result=result))
        finished.close(folder)
        return {"result": result.to_json()}

    # -- a life ----------------------------------------------------------------------------------

    def reached(self, phase: str) -> bool:
        """Whether the life has come to this phase."""
        job = self.work("training")
        pods = [p["phase"] for p in self.cluster.of("Pod") if p["metadata"]["labels"][names.COMPONENT] == "training"]
        verified = [v for v in self.models() if is_true(v, "Ready")]
        return {
            "accepted": True,
            "materialising": self.work("materialize") is not None,
            "fetching": self.work("fetch") is not None,
            "pending": pods == ["Pending"],
            "running": len(self.trained) == 2,
            "exporting": pods == ["Exporting"],
            "exported": pods == ["Exported"],
            "ended": job is not None and is_true(job, "Complete"),
            "recorded": bool(self.models()),
            "finished": is_true(self.job, "Finished"),
            "verified": bool(verified),
        }[phase]

    async def until(self, phase: str) -> None:
        """Live until the phase; the operator does not look any more in the moment in which it comes."""
        for _ in range(ROUNDS):
            self.play()
            if phase in PHASES[:8] and self.reached(phase):
                return
            before = {
                ref: dict(body["status"]) for ref, body in self.cluster.objects.items() if ref[0] == "FineTuneJob"
            }
            await self.reconcile()
            if self.reached(phase):
                if phase == "recorded":  # the operator was killed between the two writes
                    for ref, status in before.items():
                        self.cluster.objects[ref]["status"] = status
                        self.cluster.touch(self.cluster.objects[ref], "status")
                return
            self.now += timedelta(seconds=30)
        raise AssertionError(f"phase {phase} was not reached: {self.job}")

    def losable(self) -> list[str]:
        """What is there to be lost. Without it, a loss is that of the rest, which another life has."""
        return [what for what in LOSSES if (self.job["status"] if what == "status" else self._lost(what))]

    def lose(self, what: tuple[str, ...]) -> None:
        """As somebody with kubectl, or a restore that brings some objects back and others not."""
        if "status" in what:
            self.job["status"] = {}
            self.cluster.touch(self.job, "status")
        for loss in [loss for loss in what if loss != "status"]:
            for body in self._lost(loss):
                self.cluster.remove(body, orphans=loss == "Job" and "pods" not in what)

    def _lost(self, what: str) -> list[Body]:
        """The objects that are meant."""
        bodies = self.cluster.of({"pods": "Pod", "ConfigMaps": "ConfigMap"}.get(what, what))
        return [b for b in bodies if b["metadata"].get("labels", {}).get(names.COMPONENT) != "verify"]

    async def to_the_end(self) -> None:
        """Live on until nothing is written any more."""
        quiet = 0
        for _ in range(ROUNDS):
            before = self._state()
            self.play()
            await self.reconcile()
            quiet = quiet + 1 if self._state() == before else 0
            self.now += timedelta(seconds=60)
            if quiet == QUIET:
                return
        self.wrong.append(f"never quiet: {self.cluster.writes[-12:]}")

    def _state(self) -> Any:
        return len(self.cluster.writes), len(self.trained), [p["phase"] for p in self.cluster.of("Pod")]

    def check(self) -> list[str]:
        """What must not be, in the end."""
        wrong = list(dict.fromkeys(self.wrong))
        for name, was in self.recorded.items():
            file = Path(name)
            if not file.exists() or (file.read_bytes(), file.stat().st_mtime_ns) != was:
                wrong.append(f"{name} was recorded, and has changed")
        if not is_true(self.job, "Succeeded"):
            wrong.append(f"the run has not succeeded: {self.job['status']}")
        if sorted(self.trained) != list(range(1, STEPS + 1)):
            wrong.append(f"steps trained: {self.trained}")
        return wrong


async def live(store: Path, phase: str, lost: tuple[str, ...], cold: bool) -> World:
    world = World(store)
    await world.until(phase)
    world.lose(lost)
    if cold:
        world.start_operator()
    await world.to_the_end()
    return world


async def losses(store: Path, phase: str) -> list[tuple[str, ...]]:
    """Every subset of what is there at this phase; nothing at all where only the job is."""
    world = World(store)
    await world.until(phase)
    there = world.losable()
    return [c for n in range(len(there) + 1) for c in itertools.combinations(there, n)]


@pytest.mark.faults("O19")
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("cold", [False, True], ids=["operator goes on", "operator is new"])
def test_whatever_is_lost_nothing_finished_changes_and_no_step_is_trained_twice(
    tmp_path: Path, phase: str, cold: bool
) -> None:
    wrong = {}
    for number, lost in enumerate(asyncio.run(losses(tmp_path / "before", phase))):
        world = asyncio.run(live(tmp_path / str(number), phase, lost, cold))
        if found := world.check():
            wrong[lost] = found
        if "ModelVersion" not in lost:
            assert [v["metadata"]["name"] for v in world.models()] == ["tutor-v1"], lost
    assert wrong == {}
