"""Bad input in a real cluster: each cause has a reason of its own, heals when it goes away, and starts no training."""

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hone_dev import models

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]

HANG = 15 * 60.0  # seconds; a guard against hanging on a busy machine, not an expectation
GOOD_ROWS = [{"prompt": f"What is {n} and one?", "completion": f"It is {n + 1}."} for n in range(40)]
TOKEN = "hf_of_the_test_0123"


@pytest.fixture(scope="module")
def gated() -> Iterator[str]:
    """A gated repository in the hub, with a tiny model in it."""
    name = f"gated-{os.urandom(3).hex()}"  # another worker may have one, too
    folder = models.hub_root() / "models" / "hone-tests" / name
    models.tiny(folder / "main")
    (folder / "hub.json").write_text(json.dumps({"gated": True, "tokens": [TOKEN]}))
    yield f"hf://hone-tests/{name}"
    shutil.rmtree(folder)


def dataset(name: str, key: str, **spec: Any) -> dict[str, Any]:
    source = {"uri": f"configmap://files/{key}"} | spec.pop("source", {})
    body = {"source": source, "splits": {"validation": "10%"}, **spec}
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": name}, "spec": body}


def job(name: str, model: dict[str, str], **spec: Any) -> dict[str, Any]:
    body = {
        "model": model,
        "datasets": [{"name": "good"}],
        "training": {"maxSteps": 2},
        "resources": {"cpu": "100m", "memory": "2Gi"},
        "output": {"modelName": name},
        **spec,
    }
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}, "spec": body}


def secret(name: str, key: str, value: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: value}}


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def apply_files(kubectl: Any) -> None:
    """The ConfigMap that all Datasets here read."""
    no_answer = {"messages": [{"role": "user", "content": "Hello?"}]}
    data = {
        "good.jsonl": lines(GOOD_ROWS),
        "empty.jsonl": "",
        "broken.jsonl": lines(GOOD_ROWS[:3]) + '{"prompt": "a", "comp\n' + lines(GOOD_ROWS[3:6]),
        "columns.jsonl": lines([{"question": "a", "answer": "b"}] * 5),
        "silent.jsonl": lines([no_answer] * 5),
    }
    binary = {"latin1.jsonl": base64.b64encode('{"prompt": "Grüße", "completion": "b"}\n'.encode("latin-1")).decode()}
    body = {"metadata": {"name": "files"}, "data": data, "binaryData": binary}
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", **body})


def condition(kubectl: Any, kind: str, name: str, type_: str) -> dict[str, Any]:
    conditions = kubectl.get(kind, name).get("status", {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == type_), {})


def wait(check: Callable[[], Any], what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + HANG
    while not check():
        assert time.monotonic() < deadline, what()
        time.sleep(1)


def reason_becomes(kubectl: Any, kind: str, name: str, type_: str, reason: str) -> dict[str, Any]:
    """The condition, once it has this reason."""
    wait(
        lambda: condition(kubectl, kind, name, type_).get("reason") == reason,
        lambda: f"{kind} {name}: {condition(kubectl, kind, name, type_)} instead of {reason}",
    )
    return condition(kubectl, kind, name, type_)


def training_jobs(kubectl: Any) -> list[str]:
    items = kubectl.get("jobs", "--selector=hone.dev/component=training")["items"]
    return [item["metadata"]["name"] for item in items]


def test_bad_data_is_counted_and_named(kubectl) -> None:
    apply_files(kubectl)
    wrong = "0" * 64
    expected = {
        "empty": ("EmptySource", None, []),
        "broken": ("TooManyBadRows", "BrokenJson", [4]),
        "columns": ("TooManyBadRows", "MissingColumn", [1, 2, 3, 4, 5]),
        "silent": ("TooManyBadRows", "NoAssistantTurn", [1, 2, 3, 4, 5]),
        "latin1": ("TooManyBadRows", "NotUTF8", [1]),
    }
    formats = {"silent": "Chat"}
    kubectl.apply(
        *(dataset(n, f"{n}.jsonl", format=formats.get(n, "PromptCompletion")) for n in expected),
        dataset("tampered", "good.jsonl", source={"sha256": wrong}),
        dataset("lost", "good.jsonl", source={"uri": "configmap://nothing/rows.jsonl"}),
        dataset("far", "good.jsonl", source={"uri": "https://no-such-host.invalid/rows.jsonl"}),
    )
    for name, (reason, code, rows) in expected.items():
        message = reason_becomes(kubectl, "dset", name, "Ready", reason)["message"]
        assert message, name
        errors = {e["code"]: e for e in kubectl.get("dset", name)["status"].get("errors", ())}
        if code:
            assert errors[code]["rows"] == rows, name
            assert errors[code]["count"] == len(rows), name
    reason_becomes(kubectl, "dset", "tampered", "Ready", "ChecksumMismatch")
    reason_becomes(kubectl, "dset", "lost", "Ready", "ConfigMapNotFound")
    reason_becomes(kubectl, "dset", "far", "Ready", "SourceUnreachable")


def test_what_is_missing_holds_the_job_back_and_heals(kubectl, gated) -> None:
    apply_files(kubectl)
    smollm = "hf://HuggingFaceTB/SmolLM2-135M-Instruct"
    kubectl.apply(
        dataset("good", "good.jsonl"),
        job("no-model", {"uri": "hf://HuggingFaceTB/no-such-model"}),
        job("no-revision", {"uri": f"{smollm}@no-such-branch"}),
        job("no-token", {"uri": gated}),
        job("no-secret", {"uri": gated, "secretName": "later"}),
        job("no-claim", {"uri": "pvc://no-claim/model"}),
        job("no-data", {"uri": smollm}, datasets=[{"name": "missing"}]),
    )
    reasons = {
        "no-model": ("ModelReady", "ModelNotFound"),
        "no-revision": ("ModelReady", "RevisionNotFound"),
        "no-token": ("ModelReady", "GatedModelAccessDenied"),
        "no-secret": ("ModelReady", "SecretNotFound"),
        "no-claim": ("ModelReady", "PVCNotFound"),
        "no-data": ("DatasetReady", "DatasetNotFound"),
    }
    for name, (type_, reason) in reasons.items():
        assert reason_becomes(kubectl, "ftj", name, type_, reason)["message"], name
    assert training_jobs(kubectl) == []
    kubectl.apply(secret("later", "HF_TOKEN", TOKEN))
    reason_becomes(kubectl, "ftj", "no-secret", "Finished", "Succeeded")
    everything = kubectl("get", "ftj,dset,mv,jobs,pods,configmaps,events", "--output=yaml")
    assert TOKEN not in everything


def test_a_run_that_cannot_fit_says_so(kubectl, gated) -> None:
    apply_files(kubectl)
    kubectl.apply(
        dataset("good", "good.jsonl"),
        secret("token", "HF_TOKEN", TOKEN),
        job("huge", {"uri": gated, "secretName": "token"}, resources={"cpu": "100m", "memory": "900Gi"}),
        job("tight", {"uri": gated, "secretName": "token"}, resources={"cpu": "100m", "memory": "200Mi"}),
    )
    assert "memory" in reason_becomes(kubectl, "ftj", "huge", "Admitted", "Unschedulable")["message"]
    reason_becomes(kubectl, "ftj", "tight", "Finished", "Failed")
    failure = kubectl.get("ftj", "tight")["status"]["failure"]
    assert failure["code"] == "OutOfMemory"
    assert "resources.memory" in failure["hint"]
    kubectl("delete", "ftj", "huge", "--timeout=120s")
