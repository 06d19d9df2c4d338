"""Builders of observed objects: what the API server would show."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.cluster.platforms import platform_with

from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.upstream import Upstream
from hone_operator.reconcile.run.finetunejob import reconcile
from hone_operator.reconcile.staging.observed import Observed
from hone_operator.reconcile.staging.staging import StoreState

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64
CLAIM = {"name": "hone-store", "namespace": "team", "uid": "claim-uid"}


def at(seconds: float = 0) -> str:
    """Seconds after the start, as Kubernetes writes it."""
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


class World:
    """One namespace as the operator sees it; `tick` is what the controllers do with a decision."""

    platform = platform_with("trainer:1", progress_url="https://hone.svc:8443", progress_ca="PEM")
    digest = DIGEST

    def __init__(self) -> None:
        self.now = START

    def time(self, seconds: float = 0) -> datetime:
        return START + timedelta(seconds=seconds)

    def job(self, **spec: Any) -> dict[str, Any]:
        """A FineTuneJob that was just created."""
        return {
            "apiVersion": "hone.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {
                "name": "run",
                "namespace": "team",
                "uid": "job-uid",
                "generation": 1,
                "creationTimestamp": at(),
            },
            "spec": {
                "model": {"uri": "pvc://models/smol"},
                "datasets": [{"name": "rows"}],
                "output": {"modelName": "tutor"},
                **spec,
            },
        }

    def dataset(self, ready: bool = True, **status: Any) -> dict[str, Any]:
        """A Dataset, materialized or not."""
        reason = "Materialized" if ready else "TooManyBadRows"
        condition = {"type": "Ready", "status": str(ready), "reason": reason, "message": "7 of 9 rows"}
        return {
            "kind": "Dataset",
            "metadata": {"name": "rows", "namespace": "team", "uid": "data-uid", "generation": 3},
            "spec": {"source": {"uri": "pvc://data/rows.jsonl"}},
            "status": {
                "observedGeneration": 3,
                "digest": DIGEST,
                "conditions": [condition],
                "splits": [{"name": "train", "rows": 90}, {"name": "validation", "rows": 10}],
                **status,
            },
        }

    def child(self, body: dict[str, Any], *pods: dict[str, Any], created: float = 0, **fields: Any) -> ObservedJob:
        """A Job that was asked for, as it is observed: with uid and status."""
        observed = ObservedJob(body, list(pods), **fields)
        body["metadata"] = {"creationTimestamp": at(created), **body["metadata"], "uid": f"uid-of-{observed.name}"}
        body.setdefault("status", {"startTime": at(), "active": len(pods)})
        return observed

    def ended(self, job: ObservedJob, type_: str, seconds: float = 60, message: str = "") -> ObservedJob:
        """The Job with its terminal condition."""
        condition = {"type": type_, "status": "True", "reason": "PodFailurePolicy", "message": message}
        job.body["status"]["conditions"] = [{**condition, "lastTransitionTime": at(seconds)}]
        return job

    def without_pods(self, job: ObservedJob, exit_code: int = 78) -> ObservedJob:
        """A failed Job whose pod is gone, as after its node: what is left is the Job's own condition."""
        message = f"Container trainer for pod team/run-1-0-a failed with exit code {exit_code} matching FailJob rule"
        return self.ended(self.child(job.body), "Failed", message=message)

    def pod(self, rank: int = 0, phase: str = "Running", **status: Any) -> dict[str, Any]:
        """A pod that has a node."""
        conditions = [{"type": "PodScheduled", "status": "True"}, *status.pop("conditions", [])]
        return {
            "kind": "Pod",
            "metadata": {
                "name": f"run-1-{rank}-abcde",
                "labels": {"batch.kubernetes.io/job-completion-index": str(rank)},
                "creationTimestamp": at(),
            },
            "status": {"phase": phase, "conditions": conditions, **status},
        }

    def unscheduled(self, message: str = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.") -> dict[str, Any]:
        pod = self.pod(phase="Pending")
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        pod["status"]["conditions"] = [condition]
        return pod

    def waiting(self, reason: str, message: str = "") -> dict[str, Any]:
        state = {"waiting": {"reason": reason, "message": message}}
        return self.pod(phase="Pending", containerStatuses=[{"name": "trainer", "state": state}])

    def dead(
        self,
        exit_code: int,
        rank: int = 0,
        seconds: float = 50,
        outcome: Any = None,
        reason: str = "Error",
        **status: Any,
    ) -> dict[str, Any]:
        """A pod whose container has ended."""
        message = json.dumps(outcome) if outcome else ""
        state = {"exitCode": exit_code, "reason": reason, "finishedAt": at(seconds), "message": message}
        phase = "Failed" if exit_code else "Succeeded"
        return self.pod(rank, phase, containerStatuses=[{"name": "trainer", "state": {"terminated": state}}], **status)

    def disrupted(self, exit_code: int = 75, rank: int = 0) -> dict[str, Any]:
        taken = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": "preempted by other/pod",
        }
        return self.dead(exit_code, rank, conditions=[taken])

    def failure(self, code: str, message: str = "words of the trainer", **fields: Any) -> dict[str, Any]:
        return {"failure": {"code": code, "message": message, **fields}}

    def result(self) -> dict[str, Any]:
        return {
            "result": {
                "kind": "Training",
                "artifacts": [
                    {"format": "Adapter", "uri": "adapter", "digest": DIGEST, "sizeBytes": 10},
                ],
                "numbers": [{"name": "loss", "base": "3.9", "tuned": "2.1"}],
                "steps": 12,
                "peakMemoryBytes": 1000,
                "resolved": {"micro_batch_size": 4, "learning_rate": "2e-4"},
            }
        }

    def component(self, kind: str, create: tuple[dict[str, Any], ...]) -> list[str]:
        """Names of what was asked for, by kind."""
        return [b["metadata"]["name"] for b in create if b["kind"] == kind]


def conditions(status: dict[str, Any]) -> dict[str, str]:
    """Type -> status/reason."""
    return {c["type"]: f"{c['status']}/{c['reason']}" for c in status["conditions"]}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session", name="conditions")
def conditions_fixture() -> Any:
    return conditions


@pytest.fixture(scope="session", name="at")
def at_fixture() -> Any:
    return at


class Life:
    """A job that is reconciled again and again; keeps the status and the Jobs that were made."""

    def __init__(self, world: Any, **spec: Any):
        self.world = world
        self.job = world.job(**spec)
        self.datasets = {"rows": world.dataset()}
        self.claim_exists: bool | None = True
        self.children: list[Any] = []
        self.shared: list[Any] = []
        """Jobs of the store's claim; several lives may have one list."""
        self.claim: Any = {"kind": "PersistentVolumeClaim", "metadata": {**CLAIM}}
        self.report: Any = None
        self.ledger: Any = None
        self.versions: list[Any] = []
        self.upstream = Upstream()

    def tick(self, seconds: float = 0, **seen: Any) -> Outcome:
        """Reconcile, and do what was decided."""
        observed = Observed(
            datasets=self.datasets,
            jobs=self.children,
            report=self.report,
            claim_exists=self.claim_exists,
            ledger=self.ledger,
            versions=self.versions,
            upstream=self.upstream,
            store=StoreState(self.claim, self.shared),
            **seen,
        )
        outcome = reconcile(self.job, observed, self.world.time(seconds), self.world.platform)
        if outcome.status is not None:
            self.job["status"] = outcome.status
        if not seen.get("refusals"):
            for body in outcome.create:
                self._made(body, seconds)
        gone = {b["metadata"]["name"] for b in outcome.delete}
        self.children = [c for c in self.children if c.name not in gone]
        self.shared[:] = [c for c in self.shared if c.name not in gone]
        return outcome

    def _made(self, body: dict[str, Any], seconds: float) -> None:
        if body["kind"] == "PersistentVolumeClaim":
            self.claim = {"kind": body["kind"], "metadata": {**body["metadata"], "uid": "claim-uid"}}
        if body["kind"] != "Job":
            return
        jobs = self.shared if "hone.dev/content" in body["metadata"]["labels"] else self.children
        if body["metadata"]["name"] not in {c.name for c in jobs}:
            jobs.append(self.world.child(body, created=seconds))

    @property
    def _newest(self) -> list[Any]:
        """The Jobs of the attempts, once there is one; until then those that stage."""
        return self.children or self.shared

    def pods(self, *pods: Any) -> None:
        """The pods of the newest Job."""
        self._newest[-1] = self.world.child(self._newest[-1].body, *pods)

    def ends(self, type_: str, *pods: Any, seconds: float = 60, **fields: Any) -> None:
        """The newest Job ends with these pods."""
        job = self.world.child(self._newest[-1].body, *pods, **fields)
        self._newest[-1] = self.world.ended(job, type_, seconds)

    @property
    def status(self) -> dict[str, Any]:
        return self.job["status"]


@pytest.fixture
def new_life(world):
    """Makes a Life; keyword arguments change the job's spec."""
    return lambda **spec: Life(world, **spec)


@pytest.fixture
def life(new_life):
    return new_life()
