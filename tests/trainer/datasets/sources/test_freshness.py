"""A source that was read before: known by its mark, read again when that or what it is compared with has changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servers import tls_server

from hone_api.contract.report import DatasetResult
from hone_api.plan import DatasetInput, MaterializePlan
from hone_dev import hub
from hone_dev.cluster import objectstore
from hone_trainer.datasets import materialize
from hone_trainer.datasets.sources import sources
from hone_trainer.endpoints import s3
from hone_trainer.endpoints.http import Mark

pytestmark = pytest.mark.trainer


def rows(count: int) -> str:
    return "".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(count))


class Source:
    """Where rows can be put, and the plan that reads them."""

    def __init__(self, folder: Path, **fields: Any):
        self.folder = folder
        self.fields = {"limits": {"allowPrivateAddresses": True}, **fields}
        self.last: DatasetResult | None = None

    def read(self, **fields: Any) -> DatasetResult:
        """As the operator has it read: with what is known of the last time."""
        known = {"known": self.last.source_version, "previous": self.last.digest} if self.last else {}
        body = {"name": "rows", "format": "Text", "store": str(self.folder / "store"), **self.fields, **known, **fields}
        result = materialize.run(MaterializePlan.model_validate(body))
        self.last = result if result.digest else self.last
        return result

    def put(self, text: str) -> None:
        raise NotImplementedError


class Volume(Source):
    def __init__(self, folder: Path, uri: str = "pvc://claim/rows.jsonl"):
        super().__init__(folder, source={"uri": uri}, sourcePath=str(folder / "rows.jsonl"))

    def put(self, text: str) -> None:
        (self.folder / "rows.jsonl").write_text(text)


class Web(Source):
    def __init__(self, folder: Path, server: tls_server.Server):
        super().__init__(folder, source={"uri": f"https://localhost:{server.port}/rows.jsonl"})
        self.server = server

    def put(self, text: str) -> None:
        etag = {"ETag": f'"{hashlib.sha256(text.encode()).hexdigest()[:8]}"'}
        self.server.answers["/rows.jsonl"] = (200, etag, text.encode())


class Bucket(Source):
    def __init__(self, folder: Path, store: objectstore.ObjectStore):
        place = {"uri": "s3://known/rows.jsonl", "s3": {"endpoint": store.endpoint}, "secretName": "keys"}
        super().__init__(folder, source=place, secretPath=str(folder / "keys"))
        (folder / "keys").mkdir()
        (folder / "keys" / s3.KEY).write_text(store.access_key)
        (folder / "keys" / s3.SECRET).write_text(store.secret_key)
        self.file = store.bucket("known") / "rows.jsonl"

    def put(self, text: str) -> None:
        self.file.write_text(text)


class Hub(Source):
    def __init__(self, folder: Path):
        super().__init__(folder, source={"uri": "hf://acme/rows"})
        self.file = folder / "hub" / "datasets" / "acme" / "rows" / "main" / "rows.jsonl"
        self.file.parent.mkdir(parents=True)

    def put(self, text: str) -> None:
        self.file.write_text(text)


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """One of each kind."""
    if request.param == "https":
        certificate = tls_server.certificate(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with tls_server.serve(certificate) as server:
            yield Web(tmp_path, server)
    elif request.param == "s3":
        with objectstore.serve(tmp_path / "s3") as store:
            yield Bucket(tmp_path, store)
    elif request.param == "hf":
        from huggingface_hub import constants

        with hub.serve(tmp_path / "hub") as url:
            template = url + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(constants, "ENDPOINT", url)
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            yield Hub(tmp_path)
    else:
        yield Volume(tmp_path, f"{request.param}://place/rows.jsonl")


@pytest.mark.parametrize("source", ["pvc", "configmap", "https", "s3", "hf"], indirect=True)
def test_a_source_is_read_again_when_it_has_changed(source: Source) -> None:
    source.put(rows(40))
    first = source.read()
    assert first.source_version
    assert source.read() == DatasetResult(unchanged=True)
    source.put(rows(45))
    second = source.read()
    assert second.changes is not None
    assert (second.rows, second.changes.added, second.changes.removed) == (45, 5, 0)
    assert second.changes.previous == first.digest
    assert source.read().unchanged


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    source = Volume(tmp_path)
    source.put(rows(40))
    source.read()
    return source


def test_a_file_that_was_written_again_with_the_same_rows_is_nothing_new(volume: Volume) -> None:
    before = volume.last
    os.utime(volume.folder / "rows.jsonl", (1, 1))
    again = volume.read()
    assert before is not None
    assert (again.digest, again.changes, again.unchanged) == (before.digest, None, False)
    assert again.source_version != before.source_version


def test_a_config_map_is_mounted_again_by_every_pod(tmp_path: Path) -> None:
    source = Volume(tmp_path, "configmap://place/rows.jsonl")
    source.put(rows(40))
    source.read()
    os.utime(tmp_path / "rows.jsonl", (1, 1))
    assert source.read().unchanged


COMPARED = [
    ({"contamination": {"datasets": [{"name": "exam"}]}}, "evaluationSets"),
    ({"deduplicateAgainst": [{"name": "exam"}]}, "deduplicateAgainst"),
]


@pytest.mark.parametrize(("curation", "field"), COMPARED)
def test_rows_are_read_again_when_what_they_are_compared_with_has_changed(
    volume: Volume, curation: dict[str, Any], field: str
) -> None:
    held_out = volume.folder / "exam.jsonl"
    held_out.write_text('{"text": "row 7 of the exam and no other, word for word"}\n')
    exam = DatasetInput(name="exam", split="test", path=str(held_out), digest="sha256:" + "1" * 64)
    volume.fields["curation"] = curation
    assert not volume.read(**{field: [exam.to_json()]}).unchanged
    assert volume.read(**{field: [exam.to_json()]}).unchanged
    other = exam.model_copy(update={"digest": "sha256:" + "2" * 64})
    assert not volume.read(**{field: [other.to_json()]}).unchanged


def test_datasets_that_are_only_reported_on_cause_no_reading(volume: Volume) -> None:
    other = DatasetInput(name="other", path=str(volume.folder / "train.jsonl"), digest="sha256:" + "1" * 64)
    assert volume.read(otherDatasets=[other.to_json()]).unchanged


def test_rows_that_were_lost_are_read_again(volume: Volume) -> None:
    shutil.rmtree(volume.folder / "store" / "datasets")
    assert volume.read().rows == 40


def test_a_server_without_marks_is_read_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tls_server.certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with tls_server.serve(certificate) as server:
        source = Web(tmp_path, server)
        server.answers["/rows.jsonl"] = (200, {}, rows(40).encode())
        assert source.read().source_version is None
        assert source.read().rows == 40


@pytest.mark.parametrize(
    ("headers", "mark"),
    [
        ({"ETag": 'W/"a=b"', "Last-Modified": "x"}, Mark("ETag", 'W/"a=b"')),
        ({"Last-Modified": "Tue, 15 Nov 1994 12:45:26 GMT"}, Mark("Last-Modified", "Tue, 15 Nov 1994 12:45:26 GMT")),
        ({"ETag": '"' + "x" * 300 + '"', "Last-Modified": "x"}, None),
        ({"ETag": '"\n"'}, None),
        ({}, None),
    ],
)
def test_marks_of_servers(headers: dict[str, str], mark: Mark | None) -> None:
    assert Mark.of(headers) == mark
    assert mark is None or Mark.parse(str(mark)) == mark


@pytest.mark.parametrize("text", ["", "ETag=", "Cookie=x", "0" * 64])
def test_what_is_not_a_mark_asks_no_condition(text: str) -> None:
    assert Mark.parse(text) is None


def test_every_kind_of_source_is_known_here() -> None:
    assert set(sources.SOURCES) == {"pvc", "configmap", "https", "s3", "hf"}
