"""Croissant: what is read with each kind of source; what is written is read by the library of the format itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
from support.servers import tls_server

from hone_api.dataset.dataset_status import Croissant
from hone_api.plan import DatasetInput, MaterializePlan, MixPlan
from hone_dev import hub
from hone_dev.cluster import objectstore
from hone_trainer.datasets import materialize, mix
from hone_trainer.datasets.sources import croissant
from hone_trainer.endpoints import s3
from hone_trainer.store import contents, manifest

pytestmark = pytest.mark.trainer

ROWS = [
    {"messages": [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": f"{i}."}]}
    for i in range(40)
]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)
METADATA = {
    "@context": {"@vocab": "https://schema.org/"},
    "@type": "sc:Dataset",
    "conformsTo": "http://mlcommons.org/croissant/1.0",
    "name": "sums",
    "description": "Sums and their names.",
    "license": "https://spdx.org/licenses/CC-BY-4.0",
    "citeAs": "Doe et al., 2026",
    "url": "https://data.test/sums",
}
ABOUT = Croissant(
    name="sums",
    description="Sums and their names.",
    license="https://spdx.org/licenses/CC-BY-4.0",
    cite_as="Doe et al., 2026",
    url="https://data.test/sums",
)


def plan(folder: Path, uri: str, **fields: Any) -> MaterializePlan:
    source = {"uri": uri, **fields.pop("source", {})}
    body = {"name": "rows", "store": str(folder / "store"), "limits": {"allowPrivateAddresses": True}, **fields}
    return MaterializePlan.model_validate({**body, "source": source})


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(TEXT)
    (folder / "croissant.json").write_text(json.dumps(METADATA))
    return folder


def from_volume(folder: Path, place: Path, **fields: Any) -> MaterializePlan:
    return plan(folder, "pvc://claim/data", sourcePath=str(place), **fields)


def test_metadata_of_a_volume(volume: Path, tmp_path: Path) -> None:
    result = materialize.run(from_volume(tmp_path, volume))
    assert (result.rows, result.croissant) == (40, ABOUT)
    assert materialize.run(from_volume(tmp_path, volume / "rows.jsonl")).croissant == ABOUT


def test_metadata_behind_a_link_out_is_not_read(volume: Path, tmp_path: Path) -> None:
    (volume / "croissant.json").rename(tmp_path / "outside.json")
    for target in (tmp_path / "outside.json", volume / "croissant.json", Path("/dev/zero")):
        (volume / "croissant.json").symlink_to(target)
        assert materialize.run(from_volume(tmp_path, volume)).croissant is None
        (volume / "croissant.json").unlink()


def test_metadata_of_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tls_server.certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with tls_server.serve(certificate) as server:
        server.answers["/data/rows.jsonl?key=1"] = (200, {}, TEXT.encode())
        uri = f"https://localhost:{server.port}/data/rows.jsonl?key=1"
        assert materialize.run(plan(tmp_path, uri)).croissant is None
        server.answers["/data/croissant.json"] = (200, {}, json.dumps(METADATA).encode())
        assert materialize.run(plan(tmp_path, uri)).croissant == ABOUT
        server.answers["/data/croissant.json"] = (200, {"Content-Length": str(10**9)}, b"")
        assert materialize.run(plan(tmp_path, uri)).croissant is None, "too large"


def test_metadata_of_a_bucket(tmp_path: Path) -> None:
    with objectstore.serve(tmp_path / "s3") as store:
        (tmp_path / "keys").mkdir()
        (tmp_path / "keys" / s3.KEY).write_text(store.access_key)
        (tmp_path / "keys" / s3.SECRET).write_text(store.secret_key)
        folder = store.bucket("sums") / "data"
        folder.mkdir()
        (folder / "rows.jsonl").write_text(TEXT)
        source = {"s3": {"endpoint": store.endpoint}, "secretName": "keys"}
        secret = str(tmp_path / "keys")
        assert materialize.run(plan(tmp_path, "s3://sums/data", source=source, secretPath=secret)).croissant is None
        (folder / "croissant.json").write_text(json.dumps(METADATA))
        (store.bucket("sums") / "croissant.json").write_text(json.dumps(METADATA))
        for uri in ("s3://sums", "s3://sums/", "s3://sums/data", "s3://sums/data/", "s3://sums/data/rows.jsonl"):
            assert materialize.run(plan(tmp_path, uri, source=source, secretPath=secret)).croissant == ABOUT


def test_metadata_of_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    folder = tmp_path / "hub" / "datasets" / "acme" / "sums" / "main"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text(TEXT)
    (folder / "README.md").write_text("---\npretty_name: Sums\nlicense_name: ours\n---\n# Sums\n")
    with hub.serve(tmp_path / "hub") as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        told = materialize.run(plan(tmp_path, "hf://acme/sums")).croissant
        assert told == Croissant(name="Sums", license="ours"), "what the card says"
        (folder / "README.md").write_text("---\npretty_name: Sums\nlicense: mit\n---\n# Sums\n")
        told = materialize.run(plan(tmp_path, "hf://acme/sums")).croissant
        page, licence = "https://huggingface.co/datasets/acme/sums", "https://choosealicense.com/licenses/mit/"
        assert told == Croissant(name="acme/sums", license=licence, url=page), "what the hub makes of it"
        (folder / "croissant.json").write_text(json.dumps(METADATA))
        assert materialize.run(plan(tmp_path, "hf://acme/sums")).croissant == ABOUT


@pytest.mark.parametrize(
    ("document", "about"),
    [
        ({"@graph": [{"@type": "sc:Person"}, {"@type": "https://schema.org/Dataset", "sc:name": "x"}]}, {"name": "x"}),
        (
            {"@type": "Dataset", "name": {"en": "x", "de": "y"}, "license": ["MIT", {"url": "CC0"}]},
            {"name": "x", "license": "MIT, CC0"},
        ),
        ({"@type": "Dataset", "citation": " Doe "}, {"cite_as": "Doe"}),
        ({"@type": "Dataset", "description": "x" * 9999}, {"description": "x" * 600}),
        ({"@type": "Dataset", "name": 5, "license": {"@type": "x"}, "url": []}, None),
        ({"@type": "sc:Person", "name": "x"}, None),
        ({"@graph": 5}, None),
        ([], None),
        ("text", None),
    ],
)
def test_metadata_of_any_form(document: Any, about: dict[str, str] | None) -> None:
    assert croissant.read(json.dumps(document).encode()) == (Croissant(**about) if about else None)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_what_is_not_metadata_is_not_an_error(text: bytes) -> None:
    assert croissant.read(text) is None


def described(folder: Path) -> mlcroissant.Dataset:
    dataset = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    assert dataset.metadata.issues.errors == set()
    return dataset


def test_what_is_written_is_read_by_the_formats_own_library(volume: Path, tmp_path: Path) -> None:
    result = materialize.run(from_volume(tmp_path, volume, splits={"validation": "20%"}))
    folder = tmp_path / "store" / str(result.path)
    dataset = described(folder)
    assert dataset.metadata.name == "rows"
    assert dataset.metadata.license == [ABOUT.license]
    assert {record.name for record in dataset.metadata.record_sets} == {"train", "validation"}
    first = json.loads((folder / "validation.jsonl").read_text().splitlines()[0])
    (read, *_) = dataset.records("validation")
    assert [turn["validation/messages/content"].decode() for turn in read["validation/messages"]] == [
        turn["content"] for turn in first["messages"]
    ]
    assert manifest.verify(folder).files >= 5, "it is among the files that the manifest lists"


def test_columns_of_every_type_are_described(tmp_path: Path) -> None:
    rows = [
        {"text": f"t{i}", "n": i, "x": i / 2, "yes": True, "tags": ["a"], "mixed": i or "0", "deep": {}}
        for i in range(3)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    croissant.write(tmp_path, "rows", contents.hashes_of(tmp_path), "pvc://claim/x", None)
    (split,) = described(tmp_path).metadata.record_sets
    assert {field.name for field in split.fields} == {f"train/{c}" for c in ("text", "n", "x", "yes", "tags")}
    (read, *_) = described(tmp_path).records("train")
    assert (read["train/text"], read["train/n"], read["train/tags"]) == (b"t0", 0, [b"a"])


def test_a_mixture_has_the_licences_of_its_parts(volume: Path, tmp_path: Path) -> None:
    one = materialize.run(from_volume(tmp_path, volume))
    (volume / "croissant.json").write_text(json.dumps({**METADATA, "license": "MIT"}))
    (volume / "rows.jsonl").write_text(TEXT.replace("What", "Which"))
    other = materialize.run(from_volume(tmp_path, volume))
    parts = [
        DatasetInput(
            name=name, path=str(tmp_path / "store" / str(r.path) / "train.jsonl"), digest=str(r.digest), share="50%"
        )
        for name, r in (("one", one), ("other", other))
    ]
    result = mix.run(MixPlan(name="mix", parts=parts, store=str(tmp_path / "store")))
    assert result.croissant == Croissant(license=f"{ABOUT.license}, MIT", cite_as=ABOUT.cite_as)
    assert described(tmp_path / "store" / str(result.path)).metadata.name == "mix"
