"""Namespaces, queues and jobs of the two teams. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TEAMS = ("research", "support")
QUEUE, COHORT, FLAVOR = "team", "two-teams-measured", "two-teams-measured"
URGENT = "two-teams-urgent"
"""PriorityClass of the jobs that preempt others of their team."""
CPU_MILLIS = 200
ROWS = [{"prompt": f"What is {n} and one?", "completion": f"It is {n + 1}."} for n in range(40)]
KUEUE, HONE = "kueue.x-k8s.io/v1beta2", "hone.dev/v1alpha1"


@dataclass(frozen=True)
class Steps:
    """Of a job; of those that begin, so many that others come while they train."""

    usual: int = 300
    long: int = 1200


STEPS = Steps()


def namespace_of(team: str) -> str:
    return f"two-teams-{team}"


@dataclass(frozen=True)
class Wanted:
    """One job of a team."""

    team: str
    name: str
    urgent: bool = False
    steps: int = STEPS.usual

    def manifest(self, model: str) -> dict[str, Any]:
        """The FineTuneJob."""
        scheduling = {"queueName": QUEUE} | ({"priorityClassName": URGENT} if self.urgent else {})
        spec = {
            "model": {"uri": model},
            "datasets": [{"name": "rows"}],
            "training": {"maxSteps": self.steps, "batchSize": 4, "microBatchSize": 4},
            "evaluation": {"maxRows": 4, "samples": 1},
            "resources": {"cpu": f"{CPU_MILLIS}m", "memory": "2Gi"},
            "scheduling": scheduling,
            "output": {"modelName": self.name},
        }
        return _object(HONE, "FineTuneJob", self.name, spec, namespace_of(self.team))


def wanted(jobs: int, quota: int, steps: Steps = STEPS) -> list[Wanted]:
    """`jobs` in all, half of them of each team; every fifth of research, at least one, is urgent, and as many of its
    first ones as there is quota for are long."""
    out = []
    for team in TEAMS:
        count = (jobs + (team == TEAMS[0])) // 2
        urgent = max(1, count // 5) if team == TEAMS[0] else 0
        long = quota if team == TEAMS[0] else 0
        out += [
            Wanted(
                team,
                f"{team}-{n + 1}",
                n >= count - urgent,
                steps.long if n < min(long, count - urgent) else steps.usual,
            )
            for n in range(count)
        ]
    return out


def _object(api: str, kind: str, name: str, spec: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api, "kind": kind, "metadata": meta, "spec": spec}


def namespaces() -> Iterator[dict[str, Any]]:
    """Those of the teams, and the class of urgent jobs. Pods of that class displace none by themselves."""
    for team in TEAMS:
        labels = {"hone.dev/enabled": "true", "pod-security.kubernetes.io/enforce": "restricted"}
        meta = {"name": namespace_of(team), "labels": labels}
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": URGENT}}
    yield urgent | {"value": 1000, "preemptionPolicy": "Never"}


def queues(quota: int) -> Iterator[dict[str, Any]]:
    """Quota for so many jobs at a time: a quarter is each team's own, and both borrow the rest from a third queue."""
    own = quota // 4
    yield _object(KUEUE, "ResourceFlavor", FLAVOR, {})
    yield _cluster_queue("two-teams-spare", quota - own * len(TEAMS), {})
    for team in TEAMS:
        selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace_of(team)}}
        preemption = {"withinClusterQueue": "LowerPriority", "reclaimWithinCohort": "Any"}
        name = namespace_of(team)
        yield _cluster_queue(name, own, {"namespaceSelector": selector, "preemption": preemption})
        yield _object(KUEUE, "LocalQueue", QUEUE, {"clusterQueue": name}, name)


def _cluster_queue(name: str, jobs: int, more: dict[str, Any]) -> dict[str, Any]:
    plenty = [{"name": resource, "nominalQuota": "1Ti"} for resource in ("memory", "ephemeral-storage")]
    resources = [{"name": "cpu", "nominalQuota": f"{jobs * CPU_MILLIS}m"}, *plenty]
    group = {
        "coveredResources": [each["name"] for each in resources],
        "flavors": [{"name": FLAVOR, "resources": resources}],
    }
    return _object(KUEUE, "ClusterQueue", name, {"cohortName": COHORT, "resourceGroups": [group], **more})


def rows(team: str) -> Iterator[dict[str, Any]]:
    """The Dataset of a team and its rows."""
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    meta = {"name": "files", "namespace": namespace_of(team)}
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"rows.jsonl": text}}
    spec = {"source": {"uri": "configmap://files/rows.jsonl"}, "splits": {"validation": "10%"}}
    yield _object(HONE, "Dataset", "rows", spec, namespace_of(team))
