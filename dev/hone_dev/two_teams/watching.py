"""What the API server says about both teams: every change of a Workload, and pods and jobs as they are now."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch

from hone_api.words.states import ConditionType
from hone_dev.two_teams import objects
from hone_dev.two_teams.verdict import Holding, Sample

Body = Mapping[str, Any]
OfTeams = Mapping[str, list[Body]]


def is_true(body: Body, kind: str) -> bool:
    """Whether a condition of an object holds."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)


class Teams:
    """Reads the objects of both teams."""

    def __init__(self, kubeconfig: Path) -> None:
        connection = config.new_client_from_config(str(kubeconfig))
        self._pods, self._others = client.CoreV1Api(connection), client.CustomObjectsApi(connection)

    def jobs(self) -> OfTeams:
        """The FineTuneJobs of each team."""
        name, _, version = objects.HONE.partition("/")
        list_of = self._others.list_namespaced_custom_object
        return {
            team: list_of(name, version, objects.namespace_of(team), "finetunejobs")["items"] for team in objects.TEAMS
        }

    def pods(self) -> list[Body]:
        """The pods that train, of both teams."""
        found: list[Body] = []
        for team in objects.TEAMS:
            answer = self._pods.list_namespaced_pod(
                objects.namespace_of(team), label_selector="hone.dev/component=training", _preload_content=False
            )
            found += json.loads(answer.data)["items"]
        return found

    def workloads(self, version: str) -> Iterator[Body]:
        """The changes of Workloads since a resourceVersion, for a second. The last one has the next version.

        Args:
            version: empty: all Workloads there are.
        """
        name, _, served = objects.KUEUE.partition("/")
        since = {"resource_version": version} if version else {}
        stream = watch.Watch().stream(
            *(self._others.list_cluster_custom_object, name, served, "workloads"), timeout_seconds=1, **since
        )
        try:
            for event in stream:
                yield {**event["object"], "deleted": event["type"] == "DELETED"}
        except client.ApiException as error:
            if error.status != HTTPStatus.GONE or not version:
                raise
            yield from self.workloads("")  # nothing has changed for so long that the version is forgotten


@dataclass
class Workloads:
    """The Workloads of both teams, change by change."""

    version: str = ""
    changes: list[Holding] = field(default_factory=list)
    preempted: set[tuple[str, str, str]] = field(default_factory=set)
    """(Workload, time, Kueue's reason)"""
    _now: dict[tuple[str, str], bool] = field(default_factory=dict)
    """Whether it has quota, of each that has not finished, by team and name."""

    def see(self, changed: Iterable[Body]) -> None:
        """Take note of changes in their order."""
        for workload in changed:
            meta = workload["metadata"]
            self.version = meta["resourceVersion"]
            team = next((t for t in objects.TEAMS if objects.namespace_of(t) == meta["namespace"]), None)
            if team is None:
                continue
            self._now.pop((team, meta["name"]), None)
            if not (workload["deleted"] or is_true(workload, "Finished")):
                self._now[team, meta["name"]] = is_true(workload, "QuotaReserved")
            self.preempted |= set(_preemptions(workload))
            # A change without a transition carries the time of an earlier one.
            time = max([_time(workload), *(each.time for each in self.changes[-1:])])
            self.changes.append(Holding(time, self._count(held=True), self._count(held=False)))

    def _count(self, held: bool) -> dict[str, int]:
        return {t: sum(h == held for (team, _), h in self._now.items() if team == t) for t in objects.TEAMS}


def _conditions(workload: Body) -> list[Body]:
    return (workload.get("status") or {}).get("conditions") or []


def _time(workload: Body) -> float:
    """When it was last changed, as far as it says."""
    times = [workload["metadata"]["creationTimestamp"], *(c["lastTransitionTime"] for c in _conditions(workload))]
    return datetime.fromisoformat(max(times)).timestamp()


def _preemptions(workload: Body) -> Iterator[tuple[str, str, str]]:
    for each in _conditions(workload):
        if each["type"] == "Preempted" and each["status"] == "True":
            yield workload["metadata"]["name"], each["lastTransitionTime"], each["reason"]


def sample(time: float, jobs: OfTeams, pods: list[Body]) -> Sample:
    """The sample of what was read at a time."""
    alive = [pod for pod in pods if pod["status"].get("phase") in ("Pending", "Running")]
    stopping = sum("deletionTimestamp" in pod["metadata"] for pod in alive)
    steps = dict(_steps(job for found in jobs.values() for job in found))
    return Sample(time=time, pods=len(alive) - stopping, stopping=stopping, steps=steps)


def _steps(jobs: Iterable[Body]) -> Iterable[tuple[str, int]]:
    for job in jobs:
        if step := ((job.get("status") or {}).get("progress") or {}).get("step"):
            yield job["metadata"]["name"], step


def ended(jobs: OfTeams) -> Counter[str]:
    """How many jobs have ended, by phase."""
    return Counter(
        job["status"]["phase"] for found in jobs.values() for job in found if is_true(job, ConditionType.FINISHED)
    )


def trained_again(jobs: OfTeams) -> dict[str, int]:
    """Jobs that did not end at their last step, or that report steps trained twice; by how many."""
    wrong: dict[str, int] = {}
    for found in jobs.values():
        for job in found:
            status = job.get("status") or {}
            lost = sum(attempt.get("lostSteps", 0) for attempt in status.get("attempts") or ())
            missing = job["spec"]["training"]["maxSteps"] - (status.get("progress") or {}).get("step", 0)
            if lost or missing:
                wrong[job["metadata"]["name"]] = lost + missing
    return wrong
