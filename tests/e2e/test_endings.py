"""How runs end on real pods: each for a reason of its own, with what people need to go on; and nothing hangs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster.live import (
    ROWS,
    condition,
    config_map,
    dataset,
    failure,
    fill,
    job,
    lines,
    reason_becomes,
    small_volume,
    training,
    wait,
)

from hone_dev.models import models

pytestmark = [pytest.mark.e2e, pytest.mark.early, pytest.mark.usefixtures("hone")]

ENDLESS = {"maxSteps": 1_000_000, "batchSize": 2}
MEBIBYTE = 2**20


def apply_rows(kubectl: Any) -> None:
    kubectl.apply(config_map("files", {"good.jsonl": lines(ROWS)}), dataset("good", "good.jsonl"))


@pytest.fixture(scope="module")
def team(new_namespace, hone, tiny) -> Iterator[Any]:
    """A namespace with rows that are Ready, where one run has succeeded, whose pods go ten seconds later."""
    with new_namespace("endings") as kubectl:
        apply_rows(kubectl)
        kubectl.apply(job("first", {"uri": tiny}, cleanup={"podsAfter": "10s"}))
        reason_becomes(kubectl, "ftj", "first", "Finished", "Succeeded")
        yield kubectl


@pytest.fixture
def staged(team) -> dict[str, str]:
    """The model as it is in the namespace's store: no pod is needed to fetch it."""
    return {"uri": team.get("ftj", "first")["status"]["resolved"]["modelUri"]}


def runs(kubectl: Any, name: str) -> None:
    """Wait until the run has made a step."""
    wait(
        lambda: ((kubectl.get("ftj", name).get("status") or {}).get("progress") or {}).get("step"),
        lambda: f"{name} makes no step: {kubectl.get('ftj', name).get('status')}",
    )


def readable(folder: Path) -> None:
    """For pods, which have another user: safetensors writes its files as 0600."""
    for file in folder.iterdir():
        file.chmod(0o644)


def broken(kubectl: Any, model: dict[str, str]) -> dict[str, str]:
    """A copy of the model in the store with a weight that is NaN."""
    import torch
    from safetensors.torch import load_file, save_file

    (claim,) = kubectl.get("pvc")["items"]
    store = Path(kubectl.get("pv", claim["spec"]["volumeName"])["spec"]["local"]["path"])
    copy = shutil.copytree(store / model["uri"].removeprefix("pvc://hone-store/"), store / "broken")
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], torch.nan)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    readable(copy)
    return {"uri": "pvc://hone-store/broken"}


def test_pods_go_after_cleanup_and_the_record_stays(team) -> None:
    wait(lambda: not training(team, "pods", "first"), lambda: "pods are still there")
    assert training(team, "jobs", "first") == []
    status = team.get("ftj", "first")["status"]
    assert status["phase"] == "Succeeded"
    assert team.get("mv", status["modelVersionName"])["spec"]["lineage"]["job"]["name"] == "first"


def test_a_failure_has_its_code_its_hint_and_the_log_of_its_rank(team, staged) -> None:
    team.apply(
        job("diverging", broken(team, staged)),
        job("late", staged, training=ENDLESS, deadline="20s"),
    )
    late = failure(team, "late")
    assert (late["code"], late["message"]) == ("DeadlineExceeded", "The run did not end within spec.deadline 20s.")
    assert "spec.deadline" in late["hint"]
    wait(lambda: not training(team, "pods", "late"), lambda: "its pods still run")

    diverged = failure(team, "diverging")
    assert (diverged["code"], diverged["rank"], diverged["exitCode"]) == ("Diverged", 0, 70)
    assert "nan" in diverged["message"]
    assert "training.learningRate" in diverged["hint"]
    assert "Diverged" in diverged["logTail"]
    assert diverged["pod"].startswith("diverging-1-0-")
    assert team.get("mv", "--field-selector=spec.modelName=diverging")["items"] == []


def test_what_the_namespace_forbids_is_waited_for(team, staged) -> None:
    none = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    small = {"type": "Container", "max": {"memory": "1Gi"}}
    limits = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": [small]}}
    team.apply(none)
    wait(lambda: team.get("quota", "none").get("status", {}).get("hard"), lambda: "the quota is not in force")
    team.apply(job("held", staged))
    assert "exceeded quota: none" in reason_becomes(team, "ftj", "held", "Admitted", "QuotaExceeded")["message"]
    team.apply(limits)
    team("delete", "quota", "none")
    refused = reason_becomes(team, "ftj", "held", "Admitted", "PodRefused")["message"]
    assert "maximum memory usage per Container is 1Gi, but limit is 2Gi" in refused
    team("delete", "limits", "small")
    reason_becomes(team, "ftj", "held", "Finished", "Succeeded")
    assert len(team.get("ftj", "held")["status"]["attempts"]) == 1


@pytest.fixture
def small_store(kubectl, tmp_path) -> Iterator[Path]:
    """The namespace's store as a file system of 24 MiB."""
    with small_volume(kubectl, "hone-store", 24, tmp_path / "store") as folder:
        yield folder
        kubectl("delete", "namespace", kubectl.namespace, "--timeout=15m")


def test_a_full_disk_ends_an_attempt_and_the_next_one_finds_room(kubectl, small_store) -> None:
    readable(models.tiny(small_store / "tiny"))
    apply_rows(kubectl)
    kubectl("wait", "--for=condition=Ready", "dset/good", "--timeout=600s")
    filler = fill(small_store, MEBIBYTE // 2)
    spec = {"adapter": {"type": "None"}, "checkpoints": {"everySteps": 1}}
    kubectl.apply(job("full", {"uri": "pvc://hone-store/tiny"}, **spec))

    def first() -> Any:
        attempts = kubectl.get("ftj", "full").get("status", {}).get("attempts", [{}])
        return attempts[0] if "endTime" in attempts[0] else None

    ended = wait(first, lambda: f"no attempt ended: {kubectl.get('ftj', 'full')['status']}")
    filler.unlink()
    assert (ended["outcome"], ended["reason"]) == ("Failed", "DiskFull")
    message = condition(kubectl, "ftj", "full", "Running")["message"]
    assert "DiskFull" in message
    reason_becomes(kubectl, "ftj", "full", "Finished", "Succeeded")
    assert [a["outcome"] for a in kubectl.get("ftj", "full")["status"]["attempts"]] == ["Failed", "Succeeded"]


def test_what_is_deleted_while_its_pods_run_goes(team, staged) -> None:
    team.apply(job("unwanted", staged, training=ENDLESS))
    runs(team, "unwanted")
    team("delete", "ftj", "unwanted", "--timeout=15m")
    wait(lambda: not training(team, "pods", "unwanted"), lambda: "its pods still run")
    assert team.get("mv", "--field-selector=spec.modelName=unwanted")["items"] == []
