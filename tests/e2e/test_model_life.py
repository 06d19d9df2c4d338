"""A model's life on real pods, with the manifests of example 13: each step by the person whose right it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.cluster.live import conditions, reason_becomes, wait

from hone_dev.life import objects, places, platform
from hone_dev.tools.console import HoneDevError

pytestmark = [pytest.mark.e2e, pytest.mark.long]
NAME = "service-desk"
BOB, ADA = "bob@example.org", "ada@example.org"
"""Bob submits jobs, as role `edit`; Ada approves, as role `admin`."""


@pytest.fixture
def both(tmp_path: Path) -> Iterator[places.Places]:
    """A registry that asks for a password and an S3 server."""
    with places.serve(tmp_path) as both:
        yield both


@pytest.fixture
def key(hone: Any, tmp_path: Path) -> Iterator[Path]:
    """The key of a platform that wants signatures and two people for each model."""
    key = platform.make_key(tmp_path / "key")
    with platform.policies(hone, key):
        yield key


def manifest_of(file: str, **spec: Any) -> dict[str, Any]:
    """A manifest of the example, with these fields of its spec."""
    body = objects.manifest(file)
    return {**body, "spec": body.get("spec", {}) | spec} if spec else body


def apply(kubectl: Any, who: str, *bodies: dict[str, Any]) -> None:
    """As a person, the way that the example's README says."""
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies})
    kubectl("apply", "--server-side", "--filename=-", f"--as={who}", stdin=items)


def approve(kubectl: Any, who: str, version: str) -> None:
    """The command of the README, by this person."""
    patch = {"spec": {"approval": {"state": "Approved", "by": who}}}
    kubectl("patch", "modelversions.hone.dev", version, "--type=merge", f"--as={who}", "--patch", json.dumps(patch))


def champion(kubectl: Any) -> Mapping[str, Any]:
    """What the alias points to, and since when; empty: to nothing."""
    return objects.alias(kubectl.get("models.hone.dev", NAME), "champion")


def delivered(kubectl: Any, version: str) -> dict[str, dict[str, Any]]:
    """Its two deliveries by scheme, once both have arrived."""

    def arrived() -> list[dict[str, Any]]:
        entries = kubectl.get("mv", version)["status"].get("deliveries") or []
        return entries if [e["state"] for e in entries] == ["Delivered"] * 2 else []

    found = wait(arrived, lambda: kubectl("describe", "mv", version))
    assert conditions(kubectl.get("mv", version))["Delivered"]["status"] == "True"
    return {entry["uri"].partition(":")[0]: entry for entry in found}


def test_a_model_is_signed_approved_delivered_trained_again_and_rolled_back(
    hone, kubectl, tiny, key, both, tmp_path
) -> None:
    for who, role in ((BOB, "edit"), (ADA, "admin")):
        kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={who}")
    kubectl.apply(platform.signing_secret(key), *both.objects())
    training = {"epochs": 3, "batchSize": 8, "learningRate": "3e-2"}
    job = manifest_of("finetunejob.yaml", model={"uri": tiny}, training=training, submittedBy=BOB)
    job["spec"]["resources"] = {"cpu": "100m", "memory": "2Gi"}
    apply(kubectl, BOB, manifest_of("data.yaml"), manifest_of("dataset.yaml"), job)
    deliveries = manifest_of("deliver/model.yaml")["spec"]["deliveries"]
    model = manifest_of("model.yaml", deliveries=deliveries)
    model["spec"]["retrain"] |= {"minInterval": "0s", "quietPeriod": "0s"}
    for gate, limit in zip(model["spec"]["promotion"]["gates"], ("0", "100"), strict=True):
        gate["atMost"] = limit  # random weights learn less than a model does
    apply(kubectl, ADA, model)

    first = f"{NAME}-v1"
    reason_becomes(kubectl, "ftj", NAME, "Finished", "Succeeded")
    reason_becomes(kubectl, "mv", first, "Signed", "Signed")
    reason_becomes(kubectl, "mv", first, "Ready", "Verified")
    with pytest.raises(HoneDevError, match="approve"):
        approve(kubectl, BOB, first)
    assert not kubectl.get("mv", first)["status"].get("deliveries"), "nobody has approved it"
    approve(kubectl, ADA, first)
    wait(lambda: champion(kubectl).get("version") == 1, lambda: kubectl("describe", "mdl", NAME))
    arrived = delivered(kubectl, first)
    record = kubectl.get("mv", first)
    pulled = both.pull(arrived["oci"]["location"], tmp_path / "v1")
    platform.verify(pulled, record, key)
    assert both.copied(first) == places.read(pulled)

    reason_becomes(kubectl, "mdl", NAME, "UpToDate", "Trained")
    apply(kubectl, BOB, manifest_of("later/dataset.yaml"))
    second = f"{NAME}-v2"
    wait(lambda: kubectl("get", "mv", second, "--ignore-not-found"), lambda: kubectl("describe", "mdl", NAME))
    reason_becomes(kubectl, "mv", second, "Ready", "Verified")
    record = kubectl.get("mv", second)
    assert record["spec"]["lineage"]["job"]["submittedBy"] == BOB
    assert record["spec"]["evaluation"]["against"] == first
    newest = wait(
        lambda: next((c for c in kubectl.get("mdl", NAME)["status"]["candidates"] if c["version"] == 2), None),
        lambda: kubectl("describe", "mdl", NAME),
    )
    assert (newest["gates"], newest["message"]) == ("Passed", "nobody has approved it")
    assert champion(kubectl)["version"] == 1
    approve(kubectl, ADA, second)
    wait(lambda: champion(kubectl)["version"] == 2, lambda: kubectl("describe", "mdl", NAME))
    before, arrived = both.layers(arrived["oci"]["location"]), delivered(kubectl, second)
    layers = both.layers(arrived["oci"]["location"])
    assert layers.keys() & before.keys(), "the tokenizer is there already"
    assert arrived["oci"]["uploadedBytes"] == sum(size for digest, size in layers.items() if digest not in before)
    platform.verify(both.pull(arrived["oci"]["location"], tmp_path / "v2"), record, key)

    apply(kubectl, ADA, manifest_of("rollback/model.yaml", deliveries=deliveries))
    wait(lambda: champion(kubectl)["version"] == 1, lambda: kubectl("describe", "mdl", NAME))
    assert [entry["version"] for entry in champion(kubectl)["history"]][:2] == [2, 1]
    assert set(delivered(kubectl, first)) == {"oci", "s3"}
