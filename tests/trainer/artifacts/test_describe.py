"""The bill of materials of a signed model, validated by CycloneDX' own library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.servers.signing_key import Key

from hone_api.kinds.modelversion import ModelVersionSpec
from hone_operator.desired.version.mlbom import bom
from hone_trainer.errors import StoreError
from hone_trainer.store import manifest, signature

pytestmark = pytest.mark.trainer
STAGE: dict[str, Any] = {
    "baseModel": {"uri": "hf://org/base", "commit": "c0ffee", "license": "apache-2.0"},
    "datasets": [
        {"name": "rows", "split": "train", "digest": "sha256:" + "5" * 64, "rows": 10, "license": "cc-by-4.0, own"}
    ],
    "job": {"name": "run", "uid": "u"},
    "method": "SFT",
    "hyperParameters": {},
    "seed": 1,
    "image": "registry.example/trainer@sha256:" + "7" * 64,
    "finishedAt": "2026-11-27T23:00:00Z",
}


def record(**lineage: Any) -> ModelVersionSpec:
    parent = {**STAGE, "modelVersion": "tutor-v1", "digest": "sha256:" + "8" * 64}
    chained = {"uri": "hf://org/base", "modelVersion": "tutor-v1", "commit": "sha256:" + "8" * 64}
    numbers = [{"name": "loss", "dataset": "rows/validation", "base": "3.9", "tuned": "2.1", "low": "2", "high": "2.2"}]
    artifact = {"format": "Adapter", "uri": "pvc://hone-store/m", "digest": "sha256:" + "9" * 64, "sizeBytes": 1}
    return ModelVersionSpec.model_validate(
        {
            "modelName": "tutor",
            "version": 2,
            "artifacts": [artifact],
            "lineage": {**STAGE, "baseModel": chained, "method": "GRPO", "ancestors": [parent], **lineage},
            "evaluation": {"numbers": numbers},
        }
    )


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("key") / "key")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    return tmp_path / "adapter"


def bill_of(folder: Path) -> dict[str, Any]:
    text = (folder / "model.cdx.json").read_text()
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, problem
    bill: dict[str, Any] = json.loads(text)
    return bill


def test_a_signed_model_has_a_bill_that_the_standard_accepts(folder: Path, key: Key) -> None:
    digest = manifest.write(folder)
    key.sign(folder, digest, bom=bom("tutor-v2", record()))
    bill = bill_of(folder)
    model = bill["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "tutor", "2")
    assert model["licenses"] == [{"license": {"id": "Apache-2.0", "acknowledgement": "declared"}}], "of the first base"
    assert {part["name"]: part["hashes"][0]["content"] for part in model["components"]} == {
        "adapter_model.safetensors": manifest.read_entries(folder)[0].sha256,
        "manifest.json": digest.removeprefix("sha256:"),
    }
    assert [each["name"] for each in model["pedigree"]["ancestors"]] == ["org/base", "tutor-v1"]
    assert model["modelCard"]["modelParameters"]["approach"] == {"type": "reinforcement-learning"}
    tuned, base = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert (tuned["value"], tuned["confidenceInterval"]) == ("2.1", {"lowerBound": "2", "upperBound": "2.2"})
    assert (base["value"], base["slice"]) == ("3.9", "rows/validation (HeldOut), base model")


def test_the_parts_are_what_all_stages_read_and_ran_each_once(folder: Path, key: Key) -> None:
    key.sign(folder, manifest.write(folder), bom=bom("tutor-v2", record()))
    bill = bill_of(folder)
    parts = {part["bom-ref"]: part for part in bill["components"]}
    assert [part["type"] for part in parts.values()] == [
        "machine-learning-model",
        "data",
        "container",
        "machine-learning-model",
    ]
    (rows,) = (part for part in parts.values() if part["type"] == "data")
    assert rows["hashes"] == [{"alg": "SHA-256", "content": "5" * 64}]
    assert [each["license"].get("id") or each["license"]["name"] for each in rows["licenses"]] == ["CC-BY-4.0", "own"]
    assert rows["data"][0]["contents"]["properties"] == [{"name": "hone:rows", "value": "10"}]
    assert bill["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"] == [{"ref": rows["bom-ref"]}]
    assert bill["dependencies"] == [{"ref": "model", "dependsOn": list(parts)}]


def test_a_sparse_record_is_valid_as_well(folder: Path, key: Key) -> None:
    bare = record(ancestors=[], datasets=[], image=None, finishedAt=None, method="SFT", baseModel={"uri": "pvc://c/m"})
    key.sign(folder, manifest.write(folder), bom=bom("tutor-v2", bare))
    assert "licenses" not in bill_of(folder)["metadata"]["component"]


def test_the_signature_covers_the_bill(folder: Path, key: Key) -> None:
    digest = manifest.write(folder)
    key.sign(folder, digest, bom=bom("tutor-v2", record()))
    before = (folder / "model.cdx.json").read_bytes(), (folder / "model.sig").read_bytes()
    key.sign(folder, digest, bom=bom("tutor-v2", record()))
    assert ((folder / "model.cdx.json").read_bytes(), (folder / "model.sig").read_bytes()) == before
    (folder / "model.cdx.json").write_bytes(before[0].replace(b"Apache-2.0", b"MIT"))
    with pytest.raises(StoreError) as caught:
        signature.verify(folder, digest, [key.public])
    assert caught.value.code == "SignatureInvalid"
    assert "model.cdx.json: another content was signed" in caught.value.message
