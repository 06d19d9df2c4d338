"""The operator with the real Kueue and Job controller, on the rights of the chart; pods are played by hand."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.cluster.hand import Namespace, container_status, now
from support.cluster.kube import Kube, connect
from support.cluster.operator_process import Operator
from support.cluster.rights import installed

from hone_dev.cluster import kueue
from hone_dev.cluster.controlplane import control_plane

pytestmark = pytest.mark.apiserver
SYSTEM, NODE = "hone-kueue", "node"
KUEUE = "/apis/kueue.x-k8s.io/v1beta2"
CHART = {
    "kueue": {"enabled": True},
    "allNamespaces": True,
    "trainer": {"image": {"repository": "example.org/hone/trainer", "tag": "test"}},
}
COVERED = ("cpu", "memory", "ephemeral-storage")
"""Every resource that a pod of Hone on CPU requests."""
POOL = {"example.org/pool": "spot"}
TAINTED = {"key": "example.org/spot", "operator": "Exists", "effect": "NoSchedule"}
"""What Kueue adds to the pods of a Job that it admits: a selector for the nodes of their flavor, and its toleration."""
FLAVOR = {"nodeLabels": POOL, "tolerations": [TAINTED]}


def of_kueue(kind: str, name: str, spec: Any) -> dict[str, Any]:
    return {"apiVersion": KUEUE.removeprefix("/apis/"), "kind": kind, "metadata": {"name": name}, "spec": spec}


class Cluster:
    """The control plane, its operator, and what the operator has written."""

    def __init__(self, kube: Kube, audit: Path) -> None:
        self.kube, self.audit = kube, audit

    def writes(self, namespace: str) -> Counter[tuple[str, str]]:
        """How often the operator has written: (verb, resource) in a namespace, without its statuses."""
        found: Counter[tuple[str, str]] = Counter()
        for line in self.audit.read_bytes().splitlines():
            event = json.loads(line)
            about = event["objectRef"]
            ours = event["user"]["username"].startswith(f"system:serviceaccount:{SYSTEM}:")
            if ours and about.get("namespace") == namespace and "subresource" not in about:
                found[event["verb"], about["resource"]] += 1
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("kueue")
    with control_plane(folder / "plane", controllers=True, addons=(kueue.component,), garbage="400") as kubeconfig:
        kube = connect(kubeconfig, folder)
        kube.call("POST", "/api/v1/nodes", {"metadata": {"name": NODE, "labels": POOL}})
        kube.call("POST", f"{KUEUE}/resourceflavors", of_kueue("ResourceFlavor", "any", FLAVOR))
        with installed(kube, kubeconfig, SYSTEM, CHART) as account:
            user = account.kubeconfig(kubeconfig, folder / "account.kubeconfig")
            env = {"HONE_NAMESPACE": SYSTEM, "HONE_KUEUE__ENABLED": "true", "HONE_STAGING__QUEUE_NAME": "staging"}
            env["HONE_TRAINER__FEWER_NODES_AFTER_SECONDS"] = "2"  # times of pods and Workloads are whole seconds
            operator = Operator(user, folder, env).start()
            yield Cluster(kube, folder / "plane" / "logs" / "audit.log")
            assert operator.alive(), operator.log()
            operator.kill()


class Team(Namespace):
    """A namespace with a LocalQueue `team` for the quota of one job, and the kubelet's part by hand."""

    def queues(self, cpus: int) -> None:
        resources = [{"name": name, "nominalQuota": "1000Gi"} for name in COVERED[1:]]
        flavor = {"name": "any", "resources": [{"name": "cpu", "nominalQuota": cpus}, *resources]}
        spec = {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.name}},
            "resourceGroups": [{"coveredResources": list(COVERED), "flavors": [flavor]}],
            "preemption": {"withinClusterQueue": "LowerPriority"},
        }
        self.kube.call("POST", f"{KUEUE}/clusterqueues", of_kueue("ClusterQueue", self.name, spec))
        local = of_kueue("LocalQueue", "team", {"clusterQueue": self.name})
        self.kube.call("POST", f"{KUEUE}/namespaces/{self.name}/localqueues", local)

    def grow(self, cpus: int) -> None:
        """The quota is larger from now on."""
        where = "/spec/resourceGroups/0/flavors/0/resources/0/nominalQuota"
        change = [{"op": "replace", "path": where, "value": cpus}]
        self.kube.call("PATCH", f"{KUEUE}/clusterqueues/{self.name}", change, "application/json-patch+json")

    def run(self, name: str, uri: str = "pvc://models/smol", nodes: int = 1, **scheduling: Any) -> None:
        """A run that may be interrupted, and starts on fewer nodes, if it has several."""
        elastic = {"nodes": nodes, "minNodes": 1} if nodes > 1 else {}
        spec = {
            "model": {"uri": uri},
            "datasets": [{"name": "rows"}],
            "resources": {"cpu": "1", "memory": "1Gi", **elastic},
            "output": {"modelName": "tutor"},
            "restarts": {"maxRestarts": 0, "maxPreemptions": nodes - 1},
            "scheduling": {"queueName": "team", **scheduling},
        }
        self.create("FineTuneJob", name, spec)

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self.get("FineTuneJob", name).get("status") or {}
        return status

    def phase(self, name: str, phase: str) -> dict[str, Any]:
        """The status, once it has this phase."""
        self.until(lambda: self.status(name).get("phase") == phase, f"{name} is {phase}")
        return self.status(name)

    def pod_runs(self, job: str) -> str:
        """As scheduler and kubelet: the pod that the Job controller has created runs; its name."""

        def waits() -> list[str]:
            pods = [p for p in self.list("Pod") if p["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job]
            return [p["metadata"]["name"] for p in pods if not p["spec"].get("nodeName")]

        name: str = self.until(waits, f"a pod of {job}")[0]
        target = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"name": NODE}}
        self.kube.call("POST", f"/api/v1/namespaces/{self.name}/pods/{name}/binding", target)
        running = {"phase": "Running", "containerStatuses": [container_status({"running": {"startedAt": now()}})]}
        self.patch("Pod", name, {"status": running}, "status")
        return name

    def pod_saves(self, job: str, pod: str) -> None:
        """As kubelet: the pod that is asked to stop saves a checkpoint, and ends with the exit code for that."""
        self.until(lambda: self.get("Pod", pod)["metadata"].get("deletionTimestamp"), f"{pod} is told to stop")
        self.until(
            lambda: self.get("Job", job).get("status", {}).get("terminating") == 1, "the Job controller waits for it"
        )
        self.end_pod(pod, 75, {"failure": {"code": "Interrupted", "message": "saved"}})
        self.until(
            lambda: not self.get("Job", job).get("status", {}).get("terminating"), "the Job controller has seen its end"
        )
        self.delete("Pod", pod)


@pytest.fixture
def team(cluster: Cluster) -> Team:
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kube.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    team = Team(cluster.kube, name)
    for claim in ("hone-store", "models", "data"):
        team.claim(claim)
    team.queues(cpus=1)
    team.dataset()
    return team


def test_a_job_waits_for_quota_is_preempted_and_continues_as_the_same_attempt(cluster: Cluster, team: Team) -> None:
    urgent = {"metadata": {"name": f"urgent-{team.name}"}, "value": 1000}
    cluster.kube.call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", urgent)
    team.run("first")
    pod = team.pod_runs("first-1")
    status = team.phase("first", "Running")
    assert (status["queue"]["reason"], status["queue"]["clusterQueue"]) == ("Admitted", team.name)

    created = team.get("Job", "first-1")["status"]["startTime"]
    team.until(lambda: now() > created, "a later second, since Kueue orders equal priorities by the time of creation")
    team.run("second")
    status = team.phase("second", "Queued")
    team.until(lambda: "insufficient unused quota for cpu" in team.status("second")["queue"]["message"], "the reason")
    status = team.status("second")
    assert "startTime" not in status
    assert team.condition("FineTuneJob", "second", "Admitted")["message"] == status["queue"]["message"]

    team.run("third", priorityClassName=f"urgent-{team.name}")
    status = team.phase("first", "Requeued")
    assert [a["outcome"] for a in status["attempts"]] == ["Requeued"]
    assert status["queue"]["reason"] == "Preempted"
    team.pod_saves("first-1", pod)
    before = team.until(lambda: team.status("first")["attempts"][0].get("idleSince"), "it waits without pods")
    team.pod_runs("third-1")
    assert team.phase("third", "Running")["queue"]["priority"] == 1000
    waited = datetime.fromisoformat(before) + timedelta(seconds=3)
    team.until(lambda: datetime.fromisoformat(now()) >= waited, "a wait of some seconds")

    team.delete("FineTuneJob", "third")
    pod = team.pod_runs("first-1")
    status = team.phase("first", "Running")
    assert [(a["number"], a["jobName"], a["outcome"]) for a in status["attempts"]] == [(1, "first-1", "Running")]
    assert status["queue"]["evictions"] == 1
    team.until(lambda: "idleSince" not in team.status("first")["attempts"][0], "its container has started again")
    assert team.status("first")["attempts"][0]["phaseSeconds"]["queued"] >= 3
    conditions = [
        c["type"] for c in team.get("Job", "first-1")["status"].get("conditions", []) if c["status"] == "True"
    ]
    assert conditions == [], "the Job has neither failed nor lost its place"
    pods = team.get("Job", "first-1")["spec"]["template"]["spec"]
    assert (pods["nodeSelector"], TAINTED in pods["tolerations"]) == (POOL, True), "what Kueue adds stays"
    assert team.status("second")["phase"] == "Queued"
    writes = cluster.writes(team.name)
    assert writes["create", "jobs"] == 3
    assert {what for what in writes if what[1] in ("jobs", "workloads")} == {("create", "jobs")}


def test_a_user_suspends_a_job_and_another_gets_its_quota(cluster: Cluster, team: Team) -> None:
    team.run("first")
    pod = team.pod_runs("first-1")
    team.phase("first", "Running")
    team.run("second")
    team.phase("second", "Queued")
    team.patch("FineTuneJob", "first", {"spec": {"suspend": True}})
    team.phase("first", "Suspended")
    team.pod_saves("first-1", pod)
    other = team.pod_runs("second-1")
    team.phase("second", "Running")
    team.patch("FineTuneJob", "first", {"spec": {"suspend": False}})
    team.phase("first", "Queued")
    team.until(lambda: "insufficient unused quota" in team.status("first")["queue"]["message"], "it waits again")
    team.delete("FineTuneJob", "second")
    team.delete("Pod", other)
    team.pod_runs("first-1")
    status = team.phase("first", "Running")
    assert [(a["number"], a["outcome"]) for a in status["attempts"]] == [(1, "Running")]
    writes = cluster.writes(team.name)
    assert writes["patch", "workloads"] == 2
    assert writes["patch", "jobs"] == 0
    assert writes["create", "jobs"] == 2


def test_a_run_starts_with_the_quota_there_is_and_grows_at_the_next_attempt(cluster: Cluster, team: Team) -> None:
    team.run("run", nodes=2)
    pod = team.pod_runs("run-2")
    status = team.phase("run", "Running")
    assert [(a["outcome"], a["nodes"]) for a in status["attempts"]] == [("Resized", 2), ("Running", 1)]
    assert "run-1" not in team.names("Job")
    team.grow(cpus=2)
    drained = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    team.end_pod(pod, 75, conditions=[{"type": "PodScheduled", "status": "True"}, drained])
    for _ in range(2):
        team.pod_runs("run-3")
    team.until(lambda: len(team.status("run")["attempts"]) == 3, "attempt 3")
    status = team.phase("run", "Running")
    outcomes = [(a["outcome"], a["nodes"]) for a in status["attempts"]]
    assert outcomes == [("Resized", 2), ("Preempted", 1), ("Running", 2)]
    assert status["queue"]["reason"] == "Admitted"
    writes = cluster.writes(team.name)
    assert {what for what in writes if what[1] in ("jobs", "workloads")} == {("create", "jobs"), ("delete", "jobs")}


def test_a_queue_that_does_not_exist_is_named(team: Team) -> None:
    team.run("lost", queueName="elsewhere")
    team.until(
        lambda: "LocalQueue elsewhere doesn't exist" in (team.status("lost").get("queue") or {}).get("message", ""),
        "it",
    )
    assert (team.status("lost")["phase"], team.status("lost")["reason"]) == ("Queued", "QueueNotFound")


def test_a_job_that_does_not_train_waits_in_the_queue_of_the_platform(cluster: Cluster, team: Team) -> None:
    team.run("staged", "hf://org/model")

    def waits() -> Any:
        return team.condition("FineTuneJob", "staged", "ModelReady")

    team.until(lambda: "LocalQueue staging doesn't exist" in waits().get("message", ""), "it says why it waits")
    assert waits()["reason"] == "Queued"
    (job,) = team.list("Job")
    assert job["spec"]["suspend"] is True
    local = of_kueue("LocalQueue", "staging", {"clusterQueue": team.name})
    team.kube.call("POST", f"{KUEUE}/namespaces/{team.name}/localqueues", local)
    pod = team.pod_runs(job["metadata"]["name"])
    team.until(lambda: waits()["reason"] == "Fetching", "it does not wait any more")
    assert team.get("Pod", pod)["metadata"]["labels"]["hone.dev/component"] == "fetch"
    writes = cluster.writes(team.name)
    assert {what for what in writes if what[1] in ("jobs", "workloads")} == {("create", "jobs")}
