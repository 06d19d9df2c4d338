"""Every subset of what can be lost, at every phase of a job's life: nothing that is finished ever changes.

Controllers, cache and decisions are the operator's own, on an API server in memory; a hand plays Job controller,
kubelet and trainer, with the trainer's own rules of when a run has finished and where it may write.
"""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.cluster.memory_cluster import Body
from support.lives.lives import RESULTS
from support.lives.world import MemoryWorld

from hone_api.contract.plan_reading import parse_plan
from hone_api.contract.report import TrainingResult
from hone_api.contract.termination import TerminationMessage
from hone_api.kinds.modelversion import Artifact
from hone_api.plan import TrainingPlan
from hone_operator.desired.core import names
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


class LossyWorld(MemoryWorld):
    """One namespace with one job, from its creation to its end."""

    def __init__(self, store: Path) -> None:
        super().__init__()
        self.store = store
        self.trained: list[int] = []
        """Every step that any pod has trained."""
        self.wrong: list[str] = []
        self.recorded: dict[str, tuple[bytes, int]] = {}
        """Files of every model that was ever recorded, with content and time of change."""
        self.claims("data", "hone-store")
        self.add("Dataset", "rows", {"source": {"uri": "pvc://data/rows.jsonl"}})
        spec = {"model": {"uri": "hf://org/model"}, "datasets": [{"name": "rows"}], "output": {"modelName": "tutor"}}
        self.add("FineTuneJob", "run", spec)

    def models(self) -> list[Body]:
        return self.cluster.of("ModelVersion")

    def tell(self) -> None:
        super().tell()
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

    # -- kubelet and trainer ---------------------------------------------------------------------

    def play_pod(self, pod: Body) -> None:
        work, phase = pod["metadata"]["labels"][names.COMPONENT], pod.setdefault("phase", "Pending")
        plan = self._plan(pod)
        if phase == "Pending":
            if plan is None:
                name, _ = self.plan(pod["spec"])
                words = f'MountVolume.SetUp failed for volume "plan" : configmap "{name}" not found'
                event = {"reason": "FailedMount", "message": words, "lastTimestamp": self.time()}
                self.cluster.events[pod["metadata"]["uid"]] = event
                return
            if work == "training":
                pod["plan"] = plan
            pod["phase"] = "Running"
            self.pod_status(pod, "Running")
        elif phase == "Running" and work == "training":
            pod["phase"] = self._train(pod["plan"], pod)
        elif phase == "Exporting":
            folder = finished.begin(pod["plan"])
            pod["outcome"] = self._export(pod["plan"], folder)
            pod["phase"] = "Exported"
        elif phase in ("Running", "Exported"):
            pod["phase"] = "Ended"
            self.end_pod(pod, pod.get("outcome") or {"result": RESULTS[work]})

    def _plan(self, pod: Body) -> TrainingPlan | str | None:
        name, config = self.plan(pod["spec"])
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
        jobs = self.jobs("training")
        pods = [p for p in self.cluster.of("Pod") if p["metadata"]["labels"][names.COMPONENT] == "training"]
        phases = [p.get("phase", "Pending") for p in pods]
        verified = [v for v in self.models() if is_true(v, "Ready")]
        return {
            "accepted": True,
            "materialising": bool(self.work("materialize")),
            "fetching": bool(self.work("fetch")),
            "pending": phases == ["Pending"],
            "running": len(self.trained) == 2,
            "exporting": phases == ["Exporting"],
            "exported": phases == ["Exported"],
            "ended": bool(jobs) and is_true(jobs[-1], "Complete"),
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
        return len(self.cluster.writes), len(self.trained), [p.get("phase") for p in self.cluster.of("Pod")]

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


async def live(store: Path, phase: str, lost: tuple[str, ...], cold: bool) -> LossyWorld:
    world = LossyWorld(store)
    await world.until(phase)
    world.lose(lost)
    if cold:
        world.start_operator()
    await world.to_the_end()
    return world


async def losses(store: Path, phase: str, most: int) -> list[tuple[str, ...]]:
    """Every subset of what is there at this phase, of at most so many or of all; nothing where only the job is."""
    world = LossyWorld(store)
    await world.until(phase)
    there = world.losable()
    sizes = sorted({*range(min(most, len(there)) + 1), len(there)})
    return [c for n in sizes for c in itertools.combinations(there, n)]


@pytest.mark.faults("O19")
@pytest.mark.parametrize(
    "most", [pytest.param(1, id="one or all"), pytest.param(len(LOSSES), id="any", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("cold", [False, True], ids=["operator goes on", "operator is new"])
def test_whatever_is_lost_nothing_finished_changes_and_no_step_is_trained_twice(
    tmp_path: Path, phase: str, cold: bool, most: int
) -> None:
    wrong = {}
    for number, lost in enumerate(asyncio.run(losses(tmp_path / "before", phase, most))):
        world = asyncio.run(live(tmp_path / str(number), phase, lost, cold))
        if found := world.check():
            wrong[lost] = found
        if "ModelVersion" not in lost:
            assert [v["metadata"]["name"] for v in world.models()] == ["tutor-v1"], lost
    assert wrong == {}
