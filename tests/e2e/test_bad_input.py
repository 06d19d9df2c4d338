"""Bad input in a real cluster: each cause has its own reason, recovers when it goes away, and starts no training."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.cluster.live import ROWS, config_map, dataset, failure, job, lines, reason_becomes, secret, training, wait

from hone_dev.demo import command
from hone_dev.models import models

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]

TOKEN = "hf_of_the_test_0123"


@pytest.fixture(scope="module")
def gated() -> Iterator[str]:
    """A gated repository in the hub, with a tiny model in it."""
    name = f"gated-{os.urandom(3).hex()}"  # another worker may also have one
    folder = models.hub_root() / "models" / "hone-tests" / name
    models.tiny(folder / "main")
    (folder / "hub.json").write_text(json.dumps({"gated": True, "tokens": [TOKEN]}))
    yield f"hf://hone-tests/{name}"
    shutil.rmtree(folder)


def apply_files(kubectl: Any) -> None:
    """The ConfigMap that all Datasets here read."""
    no_answer = {"messages": [{"role": "user", "content": "Hello?"}]}
    data = {
        "good.jsonl": lines(ROWS),
        "empty.jsonl": "",
        "broken.jsonl": lines(ROWS[:3]) + '{"prompt": "a", "comp\n' + lines(ROWS[3:6]),
        "columns.jsonl": lines([{"question": "a", "answer": "b"}] * 5),
        "silent.jsonl": lines([no_answer] * 5),
    }
    binary = {"latin1.jsonl": base64.b64encode('{"prompt": "Grüße", "completion": "b"}\n'.encode("latin-1")).decode()}
    kubectl.apply(config_map("files", data, binaryData=binary))


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


def test_what_is_missing_holds_the_job_back_until_it_appears(kubectl, gated) -> None:
    apply_files(kubectl)
    smollm = "hf://HuggingFaceTB/SmolLM2-135M-Instruct"
    kubectl.apply(
        dataset("good", "good.jsonl"),
        job("no-model", {"uri": "hf://HuggingFaceTB/no-such-model"}),
        job("no-revision", {"uri": f"{smollm}@no-such-branch"}),
        job("no-token", {"uri": gated}),
        job("no-secret", {"uri": gated, "secretName": "hone-later"}),
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
    assert training(kubectl) == []
    kubectl.apply(secret("hone-later", "HF_TOKEN", TOKEN))
    reason_becomes(kubectl, "ftj", "no-secret", "Finished", "Succeeded")
    everything = kubectl("get", "ftj,dset,mv,jobs,pods,configmaps,events", "--output=yaml")
    assert TOKEN not in everything


def test_a_run_that_cannot_fit_says_so(kubectl, gated) -> None:
    apply_files(kubectl)
    model = {"uri": gated, "secretName": "hone-token"}
    small = {"cpu": "100m", "memory": "200Mi"}
    kubectl.apply(
        dataset("good", "good.jsonl"),
        secret("hone-token", "HF_TOKEN", TOKEN),
        job("huge", model, resources={"cpu": "100m", "memory": "900Gi"}),
        job("foreseen", model, resources=small),
    )
    assert "memory" in reason_becomes(kubectl, "ftj", "huge", "Admitted", "Unschedulable")["message"]
    assert failure(kubectl, "foreseen")["code"] == "DoesNotFit"
    assert training(kubectl, "jobs", "foreseen") == []
    staged = kubectl.get("ftj", "huge")["status"]["resolved"]["modelUri"]
    kubectl.apply(job("unforeseen", {"uri": staged}, resources=small))  # on a volume it is not looked into
    found = failure(kubectl, "unforeseen")
    assert found["code"] == "OutOfMemory"
    assert "resources.memory" in found["hint"]
    kubectl("delete", "ftj", "huge", "--timeout=15m")


@pytest.mark.alone
def test_an_image_that_cannot_be_pulled_fails_in_the_kubelets_words(kubectl, hone) -> None:
    """Alone, since the image is the operator's setting, not the job's."""
    apply_files(kubectl)
    kubectl.apply(dataset("good", "good.jsonl"))
    kubectl("wait", "--for=condition=Ready", "dset/good", "--timeout=600s")
    image = hone.values["trainer"]["image"] | {"tag": "no-such-tag"}
    command.install(replace(hone, values=hone.values | {"trainer": {"image": image, "startTimeoutSeconds": 10}}))
    try:
        kubectl.apply(job("no-image", {"uri": "pvc://hone-store/no-pod-looks-there"}))
        found = failure(kubectl, "no-image")
    finally:
        command.install(hone)
    assert found["code"] == "ImagePullFailed"
    assert "no-such-tag" in found["message"]
    assert "trainer image" in found["hint"]
    wait(lambda: not training(kubectl, "pods"), lambda: "its pod still waits")
