"""Any object deleted at any moment: nothing hangs, children go, what is left says why or goes on, no run runs twice.

One job after another is brought to a phase of its life, then one of its objects is deleted. API server, Job
controller, garbage collector and namespace controller are real; a hand plays scheduler and kubelet. All lives run
side by side under one operator, which is itself killed once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.cluster.hand import Namespace, fine_tune_job
from support.cluster.kube import Kube, connect
from support.cluster.operator_process import Operator
from support.lives.lives import LOOK_EVERY, Hand, Seen, component, look

from hone_api.kinds.plan_record import values_of
from hone_dev.cluster.controlplane import control_plane

pytestmark = pytest.mark.apiserver
HANG = 300.0  # seconds; a guard against hanging on a busy machine, not an expectation
SETTLED = 3.0  # seconds for which an end state must hold
WORK = ("materialize", "fetch", "training", "verify")
HOLD: dict[str, tuple[str, str]] = {
    "materialising": ("materialize", "Running"),
    "fetching": ("fetch", "Running"),
    "pending": ("training", "Pending"),
    "running": ("training", "Running"),
    "result": ("training", "Running"),
    "verifying": ("verify", "Running"),
}
"""The work whose pods get no further than this phase of theirs while the life is held."""
PHASES = ("unseen", *HOLD, "finished")
FROM = {
    "FineTuneJob": "unseen",
    "Dataset": "unseen",
    "Namespace": "unseen",
    "Job": "materialising",
    "ConfigMap": "materialising",
    "Service": "pending",
    "ModelVersion": "verifying",
}
"""What can be deleted, and the phase from which on it is there."""
CASES = [(p, t) for t, first in FROM.items() for p in PHASES[PHASES.index(first) :]]
NEVER = [("Service", "verifying"), ("Service", "finished")]  # the operator removes it when the attempt has ended
CASES = [(p, t) for p, t in CASES if (t, p) not in NEVER]
ALWAYS = {
    "FineTuneJob": ("unseen", "running", "result", "finished"),
    "Dataset": ("unseen", "materialising", "pending", "result"),
    "Namespace": ("materialising", "running"),
    "Job": ("materialising", "pending", "result", "verifying", "finished"),
    "ConfigMap": ("fetching", "pending", "running"),
    "Service": ("pending", "running", "result"),
    "ModelVersion": ("verifying", "finished"),
}
"""The cases of `make test`: of each object, a phase before and after each change of what must come of its deletion."""
OFTEN = [(p, t) for p, t in CASES if p in ALWAYS[t]]
SELDOM = [case for case in CASES if case not in OFTEN]
PINNED = PHASES[PHASES.index("pending") :]
LOST = ("Preempted", "Disrupted")
WELL = ("Succeeded", None)


@dataclass
class Life:
    """One job, held in a phase until one of its objects was deleted."""

    phase: str
    target: str
    space: Namespace
    hand: Hand
    deleted: bool = False
    uid: str = ""
    """Of the object that was deleted."""
    noted: set[str] = field(default_factory=set)
    """Moments that were seen to come about."""
    wrong: list[str] = field(default_factory=list)
    """What must never be."""
    missing: list[str] = field(default_factory=list)
    """What is not as it must be in the end."""

    @property
    def held(self) -> tuple[str, str] | None:
        if self.deleted:
            # A Service that ranks need is made again; until then they wait for each other.
            waits = self.target == "Service" and self.phase in ("pending", "running") and "Service" not in self.noted
            return ("training", "Running") if waits else None
        work, phase = HOLD.get(self.phase, ("", ""))
        if self.target == "ConfigMap" and self.phase not in ("running", "result"):
            phase = "Pending"  # a pod that has started does not need its plan any more
        return (work, phase) if work else None

    def step(self, seen: Seen) -> None:
        """Play one step, and note what is seen."""
        work, phase = self.held or ("", "")
        may_start = set(WORK) - ({work} if phase == "Pending" else set())
        self.hand.play(seen, may_start, set(WORK) - {work})
        self._note(seen)

    def reached(self, seen: Seen) -> bool:
        if self.phase == "finished":
            return seen.succeeded()
        work, phase = self.held or ("", "")
        pods = seen.pods(work)
        if self.phase in ("running", "result") and seen.condition("FineTuneJob", "Running")[0] != "True":
            return False
        return len(pods) == (2 if work == "training" else 1) and {p["status"]["phase"] for p in pods} == {phase}

    def delete(self, seen: Seen) -> None:
        """As `kubectl delete` does it."""
        self.deleted = True
        if self.target == "Namespace":
            return self.space.kube.call("DELETE", f"/api/v1/namespaces/{self.space.name}")
        ours = self.target in ("FineTuneJob", "Dataset", "ModelVersion")
        work = HOLD.get(self.phase, ("training", ""))[0]
        body = next((o for o in seen[self.target] if ours or component(o) == work), None)
        if body is None:  # a shared Job is made before the plan that it owns
            self.deleted = False
            return None
        self.uid = body["metadata"]["uid"]
        return self.space.delete(self.target, body["metadata"]["name"])

    def _note(self, seen: Seen) -> None:
        alive = {
            p["metadata"]["ownerReferences"][0]["uid"]
            for p in seen.pods("training")
            if p["status"]["phase"] not in ("Succeeded", "Failed")
        }
        if len(alive) > 1:
            self.wrong.append("pods of two Jobs at once")
        if len(seen["ModelVersion"]) > 1:
            self.wrong.append("two ModelVersions")
        ours = [o for kind in ("FineTuneJob", "Dataset", "ModelVersion", "Model") for o in seen[kind]]
        self.wrong += [f"finalizer on {o['metadata']['name']}" for o in ours if o["metadata"].get("finalizers")]
        if self.deleted and any(s["metadata"]["uid"] != self.uid for s in seen["Service"]):
            self.noted.add("Service")
        reason = seen.condition("FineTuneJob", "DatasetReady")[1]
        if self.target == "Dataset" and self.deleted and reason == "DatasetNotFound" and reason not in self.noted:
            self.noted.add(reason)
            self.space.create("Dataset", "rows", DATASET)


DATASET = {"source": {"uri": "pvc://data/rows.jsonl"}}
JOB = fine_tune_job(model={"uri": "hf://org/model"})
Expected = Callable[[Life, Seen], dict[str, bool]]


def job_gone(life: Life, seen: Seen) -> dict[str, bool]:
    kept = ["tutor-v1"] if life.phase in ("verifying", "finished") else []
    return {
        "the job is gone": not seen["FineTuneJob"],
        "its Jobs are gone": not seen.names("Job", "training", "fetch"),
        "its pods are gone": not seen.pods("training") + seen.pods("fetch"),
        "its plans are gone": not seen.names("ConfigMap", "training", "fetch"),
        "its Services are gone": not seen["Service"],
        "its data stays": seen.condition("Dataset", "Ready") == ("True", "Materialized"),
        "its model stays": seen.names("ModelVersion") == kept,
        "its model is verified": not kept or seen.condition("ModelVersion", "Ready")[0] == "True",
    }


def dataset_gone(life: Life, seen: Seen) -> dict[str, bool]:
    if life.phase not in PINNED:
        return {
            "the job said which Dataset it misses": "DatasetNotFound" in life.noted,
            "the job went on when it was there again": seen.succeeded() and seen.attempts() == [WELL],
        }
    plans = [values_of(v["spec"]["lineage"]) for v in seen["ModelVersion"]]
    return {
        "the run goes on with what it has pinned": seen.succeeded() and seen.attempts() == [WELL],
        "the Dataset is gone": not seen["Dataset"],
        "its children are gone": not seen.names("Job", "materialize") + seen.names("ConfigMap", "materialize"),
        "the lineage names the held-out rows": all(p.get("evaluationDatasets") for p in plans),
    }


def model_version_gone(life: Life, seen: Seen) -> dict[str, bool]:
    return {
        "it is not made again": not seen["ModelVersion"],
        "its children are gone": not seen.names("Job", "verify") + seen.names("ConfigMap", "verify"),
        "the job stays as it ended": seen.condition("FineTuneJob", "Finished") == ("True", "Succeeded"),
    }


def child_job_gone(life: Life, seen: Seen) -> dict[str, bool]:
    again = life.phase in ("pending", "running", "result")
    left = {"finished": [], "pending": ["run-2"], "running": ["run-2"], "result": ["run-2"]}
    return {
        "the work was done all the same": seen.succeeded(),
        "an attempt without its Job is a disruption": seen.attempts() == ([LOST, WELL] if again else [WELL]),
        "nothing is left of the Job": seen.names("Job", "training") == left.get(life.phase, ["run-1"]),
    }


def plan_gone(life: Life, seen: Seen) -> dict[str, bool]:
    again = life.phase == "pending"
    return {
        "the work was done all the same": seen.succeeded(),
        "what could not start was made again": seen.attempts() == ([LOST, WELL] if again else [WELL]),
    }


def service_gone(life: Life, seen: Seen) -> dict[str, bool]:
    needed = life.phase in ("pending", "running")
    return {
        "it was made again when ranks needed it": ("Service" in life.noted) == needed,
        "it is gone after the run": not seen["Service"],
        "the run goes on": seen.succeeded() and seen.attempts() == [WELL],
    }


EXPECTED: dict[str, Expected] = {
    "FineTuneJob": job_gone,
    "Dataset": dataset_gone,
    "ModelVersion": model_version_gone,
    "Job": child_job_gone,
    "ConfigMap": plan_gone,
    "Service": service_gone,
}


def check(life: Life, world: dict[str, Seen]) -> bool:
    """Whether everything is as it must be in the end; what is not is kept."""
    seen = world.get(life.space.name)
    if life.target == "Namespace":
        life.missing = [] if seen is None else [f"the namespace is gone; it holds {dict(seen.objects)}"]
    elif seen is None:
        life.missing = ["the namespace stays"]
    else:
        life.missing = [what for what, true in EXPECTED[life.target](life, seen).items() if not true]
        if life.missing:
            statuses = [o.get("status") for kind in ("FineTuneJob", "Dataset", "ModelVersion") for o in seen[kind]]
            life.missing.append(f"{seen.names('Job')} {seen.names('Pod')} {statuses}")
    return not life.missing


def new_life(kube: Kube, phase: str, target: str) -> Life:
    name = f"{phase}-{target}".lower()
    kube.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    space = Namespace(kube, name)
    for claim in ("hone-store", "data"):
        space.claim(claim)
    space.create("Dataset", "rows", DATASET)
    space.create("FineTuneJob", "run", JOB)
    return Life(phase, target, space, Hand(space))


def drive(kube: Kube, lives: list[Life], done: Callable[[dict[str, Seen]], bool]) -> None:
    """Play all lives until this is so, or nothing can be expected any more."""
    end = time.monotonic() + HANG
    while time.monotonic() < end:
        world = look(kube)
        for life in lives:
            if seen := world.get(life.space.name):
                life.step(seen)
        if done(world):
            return
        time.sleep(LOOK_EVERY)


def swept(folder: Path, cases: list[tuple[str, str]]) -> list[Life]:
    """Every one of these cases after its end."""
    with control_plane(folder / "cluster", controllers=True, garbage="400") as kubeconfig:
        kube = connect(kubeconfig, folder)
        lives = [new_life(kube, phase, target) for phase, target in cases]
        for life in lives:
            if life.phase == "unseen":
                life.delete(look(kube)[life.space.name])
        # The operator looks often, so that it finds at once what no event reports.
        operator = Operator(kubeconfig, folder, {"HONE_RESYNC_SECONDS": "5"}).start()
        try:
            sweep(kube, lives, operator)
        finally:
            operator.kill()
            print(operator.log())
    return lives


def sweep(kube: Kube, lives: list[Life], operator: Operator) -> None:
    """Hold each life in its phase, delete, and let it come to its end."""
    late = [life for life in lives if life.phase == "result"]
    ready: set[str] = set()

    def delete_what_is_due(world: dict[str, Seen]) -> bool:
        for life in lives:
            seen = world.get(life.space.name)
            if seen and not life.deleted and life.reached(seen):
                ready.add(life.space.name)
                if life not in late:
                    life.delete(seen)
        return all(life.deleted or life.space.name in ready for life in lives)

    drive(kube, lives, delete_what_is_due)
    operator.kill()
    between_result_and_version(kube, late)
    operator.start()
    since: list[float] = []

    def settled(world: dict[str, Seen]) -> bool:
        if not all([check(life, world) for life in lives]):
            since.clear()
            return False
        since.append(time.monotonic())
        return since[-1] - since[0] > SETTLED

    drive(kube, lives, settled)


def between_result_and_version(kube: Kube, lives: list[Life]) -> None:
    """While no operator is there: the run ends well, then the object is deleted."""
    world = look(kube)
    for life in lives:
        for pod in world[life.space.name].pods("training"):
            if pod["status"]["phase"] == "Running":
                life.hand.end(pod)
    for life in lives:
        life.space.until(partial(life.space.condition, "Job", "run-1", "Complete"), "the Job is Complete")
        life.delete(look(kube)[life.space.name])


@pytest.mark.faults("O13")
@pytest.mark.parametrize(
    "cases", [pytest.param(OFTEN, id="often"), pytest.param(SELDOM, id="seldom", marks=pytest.mark.long)]
)
def test_deleted_at_any_moment(tmp_path: Path, record_property: Any, cases: list[tuple[str, str]]) -> None:
    """Many cases in one test: each worker that had some of them would play them all."""
    wrong = {
        f"{life.target} when {life.phase}": ([] if life.deleted else ["the phase was not reached"])
        + life.wrong
        + life.missing
        for life in swept(tmp_path, cases)
    }
    record_property("faults", [("O13", case, not what) for case, what in wrong.items()])
    assert {case: what for case, what in wrong.items() if what} == {}
