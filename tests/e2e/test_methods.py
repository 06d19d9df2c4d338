"""The examples of the methods run in the cluster; in the long tests their models learn what the example is about."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from hone_dev.demo import runs
from hone_dev.tools import paths

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]
EXAMPLES = paths.SOURCE / "examples"
HANG = 40 * 60.0  # seconds; a guard against hanging on a busy machine, not an expectation
Numbers = dict[tuple[str, str], tuple[float, float]]


def versions_of(
    kubectl: Any, example: str, model: str | None = None, rows: int | None = None, **training: int
) -> dict[str, dict[str, Any]]:
    """Apply an example; the spec of the ModelVersion of each of its jobs, once it is Ready.

    Args:
        model: address of a base model to take instead of the example's.
        rows: held-out rows to measure by, at most.
        training: fields of each job's training to change.
    """
    objects = runs.manifests(EXAMPLES / example)
    jobs = [doc for doc in objects if doc["kind"] == "FineTuneJob"]
    for job in jobs:
        job["spec"]["resources"]["cpu"] = "500m"  # a request, not a limit: pods of other tests fit on two cores
        job["spec"]["model"] = {"uri": model} if model else job["spec"]["model"]
        job["spec"]["training"] |= training
        job["spec"]["evaluation"] |= {"maxRows": rows} if rows else {}
    document = {"apiVersion": "v1", "kind": "List", "items": objects}
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(document))
    found = {}
    for name in (job["metadata"]["name"] for job in jobs):
        version = finished(kubectl, name)["status"]["modelVersionName"]
        kubectl("wait", "--for=condition=Ready", f"mv/{version}", f"--timeout={HANG:.0f}s")
        found[name] = kubectl.get("mv", version)["spec"]
    return found


def finished(kubectl: Any, name: str) -> dict[str, Any]:
    """The job that has succeeded; fails when it ends otherwise, or hangs."""
    deadline = time.monotonic() + HANG
    while not runs.is_finished(job := kubectl.get("ftj", name)):
        assert time.monotonic() < deadline, f"{name} hangs: {job.get('status')}"
        time.sleep(2)
    done = [c["type"] for c in job["status"]["conditions"] if c["status"] == "True"]
    assert "Succeeded" in done, f"{name} ended: {job['status'].get('failure') or job['status']['conditions']}"
    return job


def numbers_of(spec: dict[str, Any]) -> Numbers:
    """(purpose, metric) -> base and tuned value."""
    numbers = spec["evaluation"]["numbers"]
    return {(n.get("purpose", "HeldOut"), n["name"]): (float(n["base"]), float(n["tuned"])) for n in numbers}


@pytest.mark.early
def test_preferences_become_a_version(kubectl, tiny) -> None:
    """With a tiny model, which learns nothing in two steps: what is learned, the long tests below show."""
    spec = versions_of(kubectl, "05-dpo", model=tiny, rows=8, maxSteps=2)["to-the-point"]
    base, tuned = numbers_of(spec)["HeldOut", "reward_accuracy"]
    assert base == pytest.approx(0.5)
    assert 0 <= tuned <= 1
    assert [a["format"] for a in spec["artifacts"]] == ["Adapter"]
    assert spec["evaluation"].get("samples", []) == []


@pytest.mark.long
def test_dapt_lowers_the_perplexity_and_says_what_it_costs(kubectl) -> None:
    numbers = numbers_of(versions_of(kubectl, "04-dapt", rows=4, maxSteps=6)["kubernetes-reader"])
    base, tuned = numbers["HeldOut", "perplexity"]
    assert tuned < 0.8 * base
    assert numbers["Retention", "perplexity"][1] > 1


@pytest.mark.long
def test_dpo_ranks_unseen_pairs(kubectl) -> None:
    numbers = numbers_of(versions_of(kubectl, "05-dpo", rows=8, maxSteps=4)["to-the-point"])
    assert numbers["HeldOut", "reward_accuracy"][0] == pytest.approx(0.5)
    assert numbers["HeldOut", "reward_accuracy"][1] >= 0.7
    assert numbers["HeldOut", "reward_margin"][1] > 0


@pytest.mark.long
def test_a_reward_model_ranks_unseen_pairs(kubectl) -> None:
    spec = versions_of(kubectl, "06-reward", maxSteps=5)["taste"]
    assert numbers_of(spec)["HeldOut", "reward_accuracy"][1] >= 0.7
    assert spec["evaluation"].get("samples", []) == []


@pytest.mark.long
def test_rlhf_is_a_chain_of_three_stages(kubectl) -> None:
    """A few steps of each stage: that it learns is shown by the trainer's tests, with three seeds."""
    found = versions_of(kubectl, "07-rlhf", maxSteps=2)
    taste, policy = found["chat-taste"], found["chat-rlhf"]
    for later in (taste, policy):
        assert [a["modelVersion"] for a in later["lineage"]["ancestors"]] == ["chat-sft-v1"]
        assert later["lineage"]["baseModel"]["modelVersion"] == "chat-sft-v1"
    numbers = numbers_of(policy)
    assert numbers["HeldOut", "kl"][0] == pytest.approx(0, abs=1e-4)
    assert numbers["HeldOut", "kl"][1] > 0
    assert ("HeldOut", "reward") in numbers
    assert {a["format"] for a in policy["artifacts"]} == {"Adapter", "Merged"}
