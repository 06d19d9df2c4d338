"""Every example runs in the cluster and ends in a Ready ModelVersion; a run survives the death of a rank."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.cluster.live import kill_processes_of

from hone_dev.demo import runs
from hone_dev.tools import paths

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]

EXAMPLES = paths.SOURCE / "examples"
HANG = 40 * 60.0  # seconds; a guard against hanging on a busy machine, not an expectation


def applied(kubectl: Any, example: str, **changes: dict[str, Any]) -> str:
    """Apply an example with some fields of the job's spec changed; return the job's name."""
    objects = runs.manifests(EXAMPLES / example)
    job = runs.job_of(objects)
    job["spec"]["resources"]["cpu"] = "500m"  # a request, not a limit: other tests' pods fit next to it on two cores
    for field, values in changes.items():
        job["spec"][field] = job["spec"].get(field, {}) | values
    document = {"apiVersion": "v1", "kind": "List", "items": objects}
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(document))
    return job["metadata"]["name"]


def until(kubectl: Any, name: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The job as soon as it has got so far; fails when it ends or hangs before."""
    deadline = time.monotonic() + HANG
    while not reached(job := kubectl.get("ftj", name)):
        assert not runs.is_finished(job), f"{name} ended: {job['status'].get('failure') or job['status']['conditions']}"
        assert time.monotonic() < deadline, f"{name} hangs: {job.get('status')}"
        time.sleep(2)
    return job


def finished(kubectl: Any, name: str) -> dict[str, Any]:
    """The job that has succeeded."""
    return until(kubectl, name, lambda job: "Succeeded" in _true(job))


def _true(resource: dict[str, Any]) -> set[str]:
    return {c["type"] for c in resource.get("status", {}).get("conditions", ()) if c["status"] == "True"}


def version_of(kubectl: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The ModelVersion that the job made, once all its files were verified."""
    name = job["status"]["modelVersionName"]
    kubectl("wait", "--for=condition=Ready", f"mv/{name}", f"--timeout={HANG:.0f}s")
    return kubectl.get("mv", name)


@pytest.mark.early
def test_an_example_ends_in_a_model_version_that_outlives_its_job(kubectl, tiny) -> None:
    """QLoRA of a tiny model in few steps: how much the example's learns is what `bench/learning.py` compares."""
    name = applied(kubectl, "03-qlora", model={"uri": tiny}, training={"maxSteps": 6})
    check_the_model_outlives(kubectl, finished(kubectl, name))


@pytest.mark.early
def test_the_first_model_learns(kubectl) -> None:
    """Most of the commands for unseen requests are right; of the base model's none is (0.67 and 0 with seed 0)."""
    job = finished(
        kubectl, applied(kubectl, "01-first-model", training={"maxSteps": 16}, evaluation={"everySteps": 16})
    )
    spec = version_of(kubectl, job)["spec"]
    check_lineage(kubectl, job, spec)
    numbers = numbers_of(spec)
    loss, right = numbers["loss"], numbers["exact_match"]
    assert loss["tuned"] <= 0.1 * loss["base"]
    assert right["tuned"] >= right["base"] + 0.4
    samples = spec["evaluation"]["samples"]
    assert len(samples) == 3
    assert [command(sample["base"]) for sample in samples] == [None] * 3
    assert all(command(sample["tuned"]) for sample in samples)


def command(answer: str) -> dict[str, Any] | None:
    """The command that a program can act on; None: the answer is no JSON object that names what to do where."""
    try:
        found = json.loads(answer)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"action", "service", "environment"} <= set(found) else None


def numbers_of(spec: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Metric -> base and tuned value, as the ModelVersion carries them."""
    return {n["name"]: {k: float(n[k]) for k in ("base", "tuned")} for n in spec["evaluation"]["numbers"]}


def check_the_model_outlives(kubectl: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Delete the job that has succeeded: its ModelVersion stays. Returns its lineage."""
    version = version_of(kubectl, job)
    check_lineage(kubectl, job, version["spec"])
    name = version["metadata"]["name"]
    kubectl("delete", "ftj", job["metadata"]["name"], "--timeout=15m")
    assert kubectl.get("mv", name)["metadata"]["name"] == name
    assert "Ready" in _true(kubectl.get("mv", name))
    return dict(version["spec"]["lineage"])


def check_lineage(kubectl: Any, job: dict[str, Any], spec: dict[str, Any]) -> None:
    """What the ModelVersion says about its making is what was."""
    assert {a["format"] for a in spec["artifacts"]} == {"Adapter"}
    loss = next(n for n in spec["evaluation"]["numbers"] if n["name"] == "loss")
    assert float(loss["tuned"]) < float(loss["base"])
    lineage = spec["lineage"]
    assert lineage["job"] == lineage["job"] | {"name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    assert lineage["baseModel"]["uri"] == job["spec"]["model"]["uri"]
    assert len(lineage["baseModel"]["commit"]) == 40
    assert lineage["steps"] == job["spec"]["training"]["maxSteps"]
    (dataset,) = kubectl.get("dset")["items"]
    assert {d["digest"] for d in lineage["datasets"]} == {dataset["status"]["digest"]}


@pytest.mark.early
def test_a_rank_that_dies_ends_the_attempt_and_the_next_one_resumes(kubectl) -> None:
    """The example with few held-out rows: it saves every second step."""
    name = applied(kubectl, "02-two-nodes", evaluation={"maxRows": 2})
    until(kubectl, name, lambda job: (job.get("status", {}).get("progress") or {}).get("step", 0) >= 3)
    pods = kubectl.get("pods", f"--selector=batch.kubernetes.io/job-name={name}-1")["items"]
    assert len(pods) == 2
    victim = next(p for p in pods if p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == "1")
    kill_processes_of(victim)
    job = finished(kubectl, name)
    first, second = job["status"]["attempts"]
    assert (first["number"], first["outcome"], first["reason"]) == (1, "Failed", "RankFailed")
    assert (second["number"], second["outcome"]) == (2, "Succeeded")
    assert second["startStep"] >= 2
    left = kubectl.get("pods", f"--selector=batch.kubernetes.io/job-name={name}-1")["items"]
    assert {p["status"]["phase"] for p in left} <= {"Failed"}  # the other rank did not go on alone
    lineage = check_the_model_outlives(kubectl, job)
    assert (lineage["attempts"], lineage["steps"]) == (2, 6)
