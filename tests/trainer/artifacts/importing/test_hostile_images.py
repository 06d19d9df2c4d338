"""Images whose registry or layers lie. The registry is made up: a real one compares digests itself."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hone_api.plan import ImportPlan
from hone_trainer.artifacts.importing import image
from hone_trainer.errors import SourceError

pytestmark = [pytest.mark.trainer, pytest.mark.attack("files of a source")]


class LyingRegistry:
    """One repository, with whatever it was given."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}

    def manifest(self, reference: str) -> tuple[str, bytes] | None:
        text = self.manifests.get(reference)
        return None if text is None else ("", text)

    def download(self, digest: str, size: int) -> Iterator[bytes]:
        yield self.blobs[digest]

    def layer(self, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return {"digest": digest, "size": len(content)}

    def put(self, *layers: bytes, reference: str = "latest") -> None:
        self.manifests[reference] = json.dumps({"layers": [self.layer(content) for content in layers]}).encode()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> LyingRegistry:
    lying = LyingRegistry()
    monkeypatch.setattr(image, "ImageRepository", lambda *_: lying)
    return lying


def tar(kind: str = "w", **members: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=kind) as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return content.getvalue()


def opened(folder: Path, reference: str = "", limit: int = 10**9) -> image.ImageOrigin:
    limits = {"allowPrivateAddresses": True, "maxSourceBytes": limit}
    source = {"uri": f"oci://registry.example.org/team/m{reference}"}
    plan = {"name": "t", "source": source, "store": str(folder), "folder": "import-1/files", "limits": limits}
    return image.ImageOrigin.open(ImportPlan.model_validate(plan), lambda *_: None)


def refused(*args: Any, **fields: Any) -> str:
    with pytest.raises(SourceError) as caught:
        opened(*args, **fields)
    return f"{caught.value.code}: {caught.value.message}"


def test_a_digest_is_that_of_the_manifest(registry: LyingRegistry, tmp_path: Path) -> None:
    pinned = f"sha256:{'a' * 64}"
    registry.put(tar(**{"models/config.json": b"evil"}), reference=pinned)
    assert f"the registry answers {pinned} with a manifest whose digest is" in refused(tmp_path, f"@{pinned}")
    registry.manifests["latest"] = json.dumps({"manifests": [{"digest": pinned}]}).encode()
    assert f"the registry answers {pinned}" in refused(tmp_path)


def test_two_images_of_one_tag_are_not_mixed(registry: LyingRegistry, tmp_path: Path) -> None:
    registry.put(tar(**{"models/old.safetensors": b"old"}))
    first = opened(tmp_path)
    registry.put(tar(**{"models/new.safetensors": b"new"}))
    second = opened(tmp_path)
    assert (list(first.sizes), list(second.sizes)) == (["old.safetensors"], ["new.safetensors"])
    assert second.commit == f"sha256:{hashlib.sha256(registry.manifests['latest']).hexdigest()}"


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"<html>",
        b'{"layers":{"a":1}}',
        b'{"layers":[{"digest":"x","size":1}]}',
        b'{"layers":[{"digest":"sha256:%s","size":null}]}' % (b"a" * 64),
        b'{"layers":[{}]}',
        b'{"manifests":"ab"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda text: str(text[:30]),
)
def test_what_is_not_a_manifest_is_refused(registry: LyingRegistry, tmp_path: Path, text: bytes) -> None:
    registry.manifests["latest"] = text
    assert refused(tmp_path).startswith("SourceRefused: ")


def sparse() -> bytes:
    """A member with a size below 0, after which the limit would be far away."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("models/a.txt")
        info.pax_headers = {"GNU.sparse.size": "-1000000000000"}
        archive.addfile(info)
    return content.getvalue()


def long_header() -> bytes:
    """A header that tarfile would read whole: 64 MiB of zeros, which take 60 KiB."""
    info = tarfile.TarInfo("h")
    info.type, info.size = tarfile.XHDTYPE, 2**26
    return gzip.compress(info.tobuf() + bytes(2**26 + 1024), compresslevel=1)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([sparse()], "models/a.txt is not a plain file below /models"),
        ([long_header()], "a header of 67108864 bytes"),
        ([tar(**{"models/old.safetensors": b"x"}), tar(**{".wh.models": b""})], ".wh.models is not a plain file"),
        ([tar(**{"models/old.safetensors": b"x"}), tar(**{"models/.wh..wh..opq": b""})], "is not a plain file"),
        ([tar(**{"models/a": b"x", "models/a/b": b"y"})], "models/a/b cannot be a file next to the others"),
        ([tar(**{f"models/{'a' * 300}": b"x"})], "cannot be a file next to the others"),
    ],
    ids=["below 0", "header", "all deleted", "folder deleted", "file and folder", "long name"],
)
def test_what_a_layer_may_not_have_is_refused(
    registry: LyingRegistry, tmp_path: Path, layers: list[bytes], words: str
) -> None:
    registry.put(*layers)
    assert words in refused(tmp_path, limit=10**8)


def put(registry: LyingRegistry, *layers: dict[str, Any]) -> None:
    registry.manifests["latest"] = json.dumps({"layers": layers}).encode()


def test_an_artifact_whose_layers_are_files_is_refused(registry: LyingRegistry, tmp_path: Path) -> None:
    kind = "application/vnd.cncf.model.weight.config.v1.raw"
    put(registry, {**registry.layer(b"{}"), "mediaType": kind})
    assert f"of type {kind} is not a tar" in refused(tmp_path)


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, "zstd", asbytes=True)
    return packed


SKIPPED = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
"""A frame of zstd without content, as pzstd and zstd:chunked write them."""


@pytest.mark.parametrize("before", [b"", SKIPPED], ids=["plain", "pzstd"])
def test_a_layer_packed_by_zstd_is_read(registry: LyingRegistry, tmp_path: Path, before: bytes) -> None:
    content = tar(**{"models/config.json": b"{}", "models/weights/a.safetensors": bytes(3 * 2**20)})
    half = len(content) // 2
    packed = before + zstd(content[:half]) + zstd(content[half:]) + SKIPPED
    registry.put(packed)
    assert opened(tmp_path).sizes == {"config.json": 2, "weights/a.safetensors": 3 * 2**20}


@pytest.mark.parametrize("end", [4, 20, -20])
def test_a_layer_packed_by_zstd_that_is_damaged_is_refused(registry: LyingRegistry, tmp_path: Path, end: int) -> None:
    packed = zstd(tar(**{"models/config.json": bytes(range(256)) * 100}))
    for content in (packed[:end], packed[:end] + b"\xff" * 40):
        registry.put(content)
        assert "is not a tar, plain or packed by gzip or zstd" in refused(tmp_path)


def test_zstd_that_unpacks_to_more_than_the_limit_is_refused_on_the_way(
    registry: LyingRegistry, tmp_path: Path
) -> None:
    """A file that is not a part of the model counts as well: it is unpacked to find the next one."""
    registry.put(zstd(tar(**{"usr/zeros": bytes(2**26)})))
    assert "more than 16787216 bytes unpacked from zstd" in refused(tmp_path, limit=10_000)


def test_the_packed_bytes_of_a_zstd_layer_are_read_to_their_end(
    registry: LyingRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a download compares the digest."""
    ends: list[bool] = []

    def download(digest: str, _size: int) -> Iterator[bytes]:
        content = registry.blobs[digest]
        yield from (content[i : i + 100] for i in range(0, len(content), 100))
        ends.append(True)

    monkeypatch.setattr(registry, "download", download)
    registry.put(zstd(tar(**{"models/config.json": b"{}"})) + SKIPPED * 50)
    assert (opened(tmp_path).sizes, ends) == ({"config.json": 2}, [True])


def test_a_failure_of_the_registry_in_the_middle_of_zstd_is_its_own(
    registry: LyingRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(digest: str, _size: int) -> Iterator[bytes]:
        yield registry.blobs[digest][:50]
        raise SourceError("SourceUnreachable", "the connection ended")

    monkeypatch.setattr(registry, "download", download)
    registry.put(zstd(tar(**{"models/config.json": random.Random(1).randbytes(2**20)})))
    assert refused(tmp_path) == "SourceUnreachable: the connection ended"
