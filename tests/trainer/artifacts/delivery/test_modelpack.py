"""oci:// targets as ModelPack artifacts, against a real registry."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from modelpack_schema import CONFIG, FILE_METADATA, MANIFEST
from safetensors.torch import save_file

from hone_api.plan import DeliverPlan
from hone_trainer.artifacts.delivery import deliver, image, modelpack
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.endpoints.http import resolve
from hone_trainer.errors import StoreError, TrainerError
from hone_trainer.store import manifest

from .conftest import Model, Stopped, Stopping, get

pytestmark = pytest.mark.trainer

LABELS = {
    "org.opencontainers.image.title": "tutor",
    "org.opencontainers.image.version": "3",
    "org.opencontainers.image.licenses": "Apache-2.0",
    "dev.hone.form": "Full",
    "dev.hone.base": "hf://org/base",
    "dev.hone.base.commit": "a" * 40,
}


def pack(model: Model, repository: str, keys: str, tag: str = "", **fields: Any) -> DeliverPlan:
    return model.plan(f"oci://{repository}{tag}", secretPath=keys, target={"packaging": "ModelPack"}, **fields)


def stored(repository: str, reference: str = "v3") -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and config, both as the specification wants them."""
    written = get(repository, f"manifests/{reference}").json()
    config = get(repository, f"blobs/{written['config']['digest']}").json()
    jsonschema.validate(written, MANIFEST)
    jsonschema.validate(config, CONFIG, format_checker=jsonschema.FormatChecker())
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in written["layers"]]
    return written, config


def files(repository: str, reference: str = "v3") -> dict[str, bytes]:
    """Content by path, as a client extracts it."""
    content = {}
    for layer in stored(repository, reference)[0]["layers"]:
        metadata = json.loads(layer["annotations"]["org.cncf.model.file.metadata+json"])
        jsonschema.validate(metadata, FILE_METADATA)
        path = layer["annotations"]["org.cncf.model.filepath"]
        assert layer["annotations"]["org.opencontainers.image.title"] == path, "oras skips a layer without it"
        content[path] = get(repository, f"blobs/{layer['digest']}").content
        assert (metadata["name"], metadata["size"]) == (Path(path).name, len(content[path]))
    return content


def test_each_file_is_a_layer_with_its_own_digest(repository: str, model: Model, keys: str) -> None:
    plan = pack(model, repository, keys, labels=LABELS, created="2026-08-01T10:00:00Z")
    result = deliver.run(plan)
    assert files(repository, result.digest) == files(repository) == model.files()
    written, config = stored(repository)
    assert written["annotations"] == LABELS
    own = {hashlib.sha256(text).hexdigest() for text in model.files().values()}
    assert {layer["digest"] for layer in written["layers"]} == {f"sha256:{digest}" for digest in own}
    assert config["descriptor"] == {
        "name": "tutor",
        "version": "3",
        "revision": model.digest,
        "createdAt": "2026-08-01T10:00:00Z",
        "description": f"Full, trained from hf://org/base@{'a' * 40}",
        "licenses": ["Apache-2.0"],
    }
    again = deliver.run(plan)
    assert (again.uploaded_bytes, again.digest) == (0, result.digest)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("model-00001-of-00002.safetensors", "weight"),
        ("model-Q4_K_M.gguf", "weight"),
        ("config.json", "weight.config"),
        ("merges.txt", "weight.config"),
        ("manifest.json", "weight.config"),
        ("model.sig", "weight.config"),
        ("README.md", "doc"),
        ("LICENSE", "doc"),
        ("plots/loss.svg", "doc"),
        ("model.cdx.json", "doc"),
        ("modeling.py", "code"),
    ],
)
def test_the_type_of_a_layer_says_what_the_file_is(path: str, kind: str) -> None:
    assert modelpack.media_type(path) == f"application/vnd.cncf.model.{kind}.v1.raw"


def test_the_config_says_how_the_weights_of_a_whole_model_are_stored(
    repository: str, keys: str, tmp_path: Path
) -> None:
    model = Model(tmp_path / "whole")
    (model.folder / "adapter_model.safetensors").unlink()
    (model.folder / "config.json").write_text('{"model_type": "llama"}')
    tensors = {"a": torch.zeros(1000, 1200, dtype=torch.bfloat16), "b": torch.zeros(34_000)}
    save_file(tensors, model.folder / "model.safetensors", metadata={"format": "pt"})
    model.digest = manifest.write(model.folder)
    deliver.run(pack(model, repository, keys))
    _, config = stored(repository)
    assert config["descriptor"]["family"] == "llama"
    assert config["config"] == {
        "architecture": "transformer",
        "format": "safetensors",
        "precision": "bfloat16,float32",
        "paramSize": "1.2M",
    }


@pytest.mark.parametrize("content", ["[1]", "{", '{"model_type": ["llama"]}', '{"model_type": ""}'])
def test_a_config_that_says_nothing_is_left_out(repository: str, model: Model, keys: str, content: str) -> None:
    (model.folder / "config.json").write_text(content)
    model.digest = manifest.write(model.folder)
    deliver.run(pack(model, repository, keys))
    assert "family" not in stored(repository)[1]["descriptor"]


def test_a_second_version_sends_only_the_files_that_differ(
    repository: str, model: Model, keys: str, tmp_path: Path
) -> None:
    deliver.run(pack(model, repository, keys))
    second = Model(tmp_path / "second", seed=2)
    result = deliver.run(pack(second, repository, keys, name="tutor-v4", version=4))
    assert 300_000 <= result.uploaded_bytes < 302_000, "neither tokenizer nor plot"
    assert files(repository, "v4") == second.files()
    assert files(repository) == model.files()


@pytest.mark.usefixtures("one_at_a_time")
def test_a_killed_push_has_no_tag_and_goes_on(repository: str, model: Model, keys: str) -> None:
    plan = pack(model, repository, keys, ":prod")
    with pytest.raises(Stopped):
        image.deliver(plan, Original.of(model.folder, model.digest), Stopping(400_000), math.inf, resolve)
    assert get(repository, "manifests/prod").status_code == 404
    assert deliver.run(plan).uploaded_bytes < 250_000, "the weights had arrived"
    assert files(repository, "prod") == model.files()


def test_an_altered_file_is_not_delivered(repository: str, model: Model, keys: str) -> None:
    original = bytearray((model.folder / "tokenizer.json").read_bytes())
    original[-1] ^= 1
    (model.folder / "tokenizer.json").write_bytes(original)
    with pytest.raises(StoreError, match=r"tokenizer.json differs from manifest.json"):
        deliver.run(pack(model, repository, keys))
    assert get(repository, "manifests/v3").status_code == 404


def test_a_tag_holds_one_packaging(repository: str, model: Model, keys: str) -> None:
    first = deliver.run(model.plan(f"oci://{repository}", secretPath=keys))
    with pytest.raises(TrainerError, match="is another image") as caught:
        deliver.run(pack(model, repository, keys))
    assert caught.value.code == "DestinationOccupied"
    assert get(repository, "manifests/v3").headers["Docker-Content-Digest"] == first.digest


def test_statement_and_bill_are_attached(repository: str, model: Model, keys: str) -> None:
    described = {"provenance": {"buildDefinition": {}}, "bom": {"metadata": {"component": {"name": "tutor"}}}}
    digest = deliver.run(pack(model, repository, keys, **described)).digest
    listed = get(repository, f"manifests/{digest.replace(':', '-')}", "application/vnd.oci.image.index.v1+json").json()
    assert {entry["artifactType"] for entry in listed["manifests"]} == {
        "application/vnd.in-toto+json",
        "application/vnd.cyclonedx+json",
    }
