"""Kubelet and containerd of a node are killed while a run trains: the same run as without, in one attempt."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster.live import ROWS, config_map, dataset, job, lines, processes_of, reason_becomes, training, wait

from hone_dev.cluster import cluster as embedded
from hone_dev.cluster.process import Supervisor

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.long, pytest.mark.usefixtures("hone")]
KILLED = ("kubelet", "containerd")
STEPS, EVERY = 1000, 20
"""Of the runs, and between checkpoints."""
SPEC: dict[str, Any] = {
    "training": {"maxSteps": STEPS, "batchSize": 2, "precision": "Float32"},
    "checkpoints": {"everySteps": EVERY},
    "evaluation": {"everySteps": STEPS, "samples": 0},
}


@pytest.fixture(scope="module")
def team(new_namespace: Any, hone: Any, tiny: str) -> Iterator[Any]:
    """A namespace where a run has succeeded, which nothing disturbed."""
    with new_namespace("node-killed") as kubectl:
        kubectl.apply(config_map("files", {"good.jsonl": lines(ROWS)}), dataset("good", "good.jsonl"))
        kubectl.apply(job("undisturbed", {"uri": tiny}, **SPEC))
        reason_becomes(kubectl, "ftj", "undisturbed", "Finished", "Succeeded")
        yield kubectl


def store_of(kubectl: Any) -> Path:
    """The folder of the namespace's store on this machine."""
    (claim,) = kubectl.get("pvc")["items"]
    return Path(kubectl.get("pv", claim["spec"]["volumeName"])["spec"]["local"]["path"])


def saved(kubectl: Any, name: str) -> int:
    """Step of the run's newest checkpoint."""
    uid = kubectl.get("ftj", name)["metadata"]["uid"]
    folders = store_of(kubectl).glob(f"runs/{uid}/checkpoints/step-*")
    return max((int(folder.name.removeprefix("step-")) for folder in folders), default=0)


def trained(kubectl: Any, name: str) -> tuple[bytes, list[tuple[int, float]]]:
    """Weights, and the losses of all steps."""
    version = kubectl.get("mv", kubectl.get("ftj", name)["status"]["modelVersionName"])
    (artifact,) = version["spec"]["artifacts"]
    folder = store_of(kubectl) / artifact["uri"].removeprefix("pvc://hone-store/")
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [(point["step"], point["loss"]) for point in points if "loss" in point]
    return (folder / "adapter_model.safetensors").read_bytes(), losses


def kill_node(pod: dict[str, Any]) -> None:
    """SIGKILL to both; the processes of the pod live on."""
    supervisor = Supervisor(embedded.paths.state())
    ranks = processes_of(pod, b"hone_trainer")
    assert ranks
    for name in KILLED:
        pid = supervisor.pid(name)
        assert pid, name
        os.kill(pid, signal.SIGKILL)
    wait(lambda: not any(map(supervisor.pid, KILLED)), lambda: "they live on", every=0.1)
    assert processes_of(pod, b"hone_trainer") == ranks


@pytest.mark.faults("T13")
@pytest.mark.parametrize("ends_meanwhile", [False, True], ids=["goes-on", "ends"])
def test_kubelet_and_containerd_are_killed_while_a_run_trains(team: Any, ends_meanwhile: bool) -> None:
    """They are started again while it trains, or after its process has ended."""
    name = "ends" if ends_meanwhile else "goes-on"
    model = {"uri": team.get("ftj", "undisturbed")["status"]["resolved"]["modelUri"]}
    team.apply(job(name, model, **SPEC))
    wait(
        lambda: saved(team, name) > 0, lambda: f"{name} saves nothing: {team.get('ftj', name).get('status')}", every=0.2
    )
    (pod,) = training(team, "pods", name)
    before = pod["status"]["containerStatuses"][0]
    kill_node(pod)
    killed_at = saved(team, name)

    def is_far_enough() -> bool:
        return not processes_of(pod, b"hone_trainer") if ends_meanwhile else saved(team, name) >= killed_at + 2 * EVERY

    wait(is_far_enough, lambda: f"{name} has saved step {saved(team, name)}", every=0.2)
    assert not embedded.is_up()
    embedded.up()
    if not ends_meanwhile:
        assert processes_of(pod, b"hone_trainer"), "the run has ended: it needs more steps"
    reason_becomes(team, "ftj", name, "Finished", "Succeeded")
    (attempt,) = team.get("ftj", name)["status"]["attempts"]
    assert (attempt["outcome"], attempt.get("lostSteps", 0), attempt.get("startStep", 0)) == ("Succeeded", 0, 0)
    (pod,) = training(team, "pods", name)
    after = pod["status"]["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    assert trained(team, name) == trained(team, "undisturbed")
