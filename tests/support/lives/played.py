"""The life of an attempt played by hand: its pods, what its trainer reports, and Kueue's part of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from support.cluster.platforms import changed

from hone_api.kinds.finetunejob_status import JobProgress
from hone_operator.progress.numbers import Latest

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MEASURED = {"loading": 20.4, "evaluatingBase": 5.2, "firstStep": 2.0, "training": 10.1, "saving": 1.0}
TEAM = {"queueName": "team"}
SHORT = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor h100"
PREEMPTED = "Preempted to accommodate a workload due to prioritization in the ClusterQueue"


def condition(type_: str, status: str, reason: str = "", message: str = "", since: str = "") -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


class Queued:
    """A life whose Job is in a queue, and Kueue's part of it played by hand."""

    def __init__(self, new_life: Any, at: Any, topology: Any = None, **spec: Any) -> None:
        placed = {"topology": topology} if topology else {}
        self.life = new_life(scheduling={**TEAM, **placed}, **spec)
        self.life.world.platform = changed(self.life.world.platform, kueue__enabled=True)
        self.at = at

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.life.status)

    @property
    def job(self) -> dict[str, Any]:
        return dict(self.life.children[-1].body)

    def kueue(self, *conditions: Any, suspend: bool = True, pods: Any = (), **workload: Any) -> None:
        """What Kueue has written: conditions of the Workload, and `suspend` of the Job."""
        meta = {"name": "job-run-1-ab12c", "namespace": "team", "uid": "wl", "creationTimestamp": self.at(1)}
        meta |= workload.pop("metadata", {})
        spec = {"active": workload.pop("active", True), "priority": 100}
        body = {
            "kind": "Workload",
            "metadata": meta,
            "spec": spec,
            "status": {"conditions": list(conditions), **workload},
        }
        job = self.life.children[-1]
        job.body["spec"]["suspend"] = suspend
        self.life.children[-1] = self.life.world.child(job.body, *pods, workload=body)

    def admitted(self, *pods: Any) -> None:
        admission = {"clusterQueue": "research"}
        quota = condition("QuotaReserved", "True", "QuotaReserved", "", self.at(20))
        taken = condition("Admitted", "True", "Admitted", "", self.at(20))
        gone = condition("Evicted", "False", "QuotaReserved", f"Previously: {PREEMPTED}", self.at(20))
        self.kueue(quota, taken, gone, suspend=False, pods=pods, admission=admission)

    def evicted(self, *pods: Any, reason: str = "Preempted", waits: str = SHORT) -> None:
        quota = condition("QuotaReserved", "False", "Pending", waits, self.at(40))
        taken = condition("Evicted", "True", reason, PREEMPTED, self.at(40))
        counted = {"evictions": [{"reason": reason, "underlyingCause": "", "count": 1}]}
        self.kueue(quota, taken, pods=pods, schedulingStats=counted)


def pod(life: Any, at: Any, rank: int = 0, scheduled: float = 3, started: float = 10) -> dict[str, Any]:
    """A pod that got a node and whose container runs."""
    state = {"running": {"startedAt": at(started)}}
    body: dict[str, Any] = life.world.pod(rank, containerStatuses=[{"name": "trainer", "state": state}])
    body["status"]["conditions"][0]["lastTransitionTime"] = at(scheduled)
    return body


def ended(life: Any, at: Any, exit_code: int, outcome: Any = None) -> dict[str, Any]:
    body: dict[str, Any] = life.world.dead(exit_code, outcome=outcome)
    body["status"]["conditions"][0]["lastTransitionTime"] = at(3)
    body["status"]["containerStatuses"][0]["state"]["terminated"]["startedAt"] = at(10)
    return body


def report(life: Any, seconds: float, stage: str, attempt: int = 1, **phases: float) -> None:
    when = START + timedelta(seconds=seconds)
    told = JobProgress(step=1, stage=stage, last_updated_time=when.strftime("%Y-%m-%dT%H:%M:%SZ"))
    life.report = Latest(attempt, told, when, ours=True, phases=phases)


def phases(life: Any, number: int = 1) -> dict[str, int]:
    found: dict[str, int] = life.status["attempts"][number - 1].get("phaseSeconds", {})
    return found
