"""A small artifact, and plans that deliver it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import requests

from hone_api.plan import DeliverPlan
from hone_dev.cluster import imageregistry
from hone_trainer.artifacts.delivery import at_once
from hone_trainer.store import manifest


@pytest.fixture(scope="module", autouse=True)
def authorities_read_once() -> Iterator[None]:
    """Python parses every authority that this machine trusts before it asks a server for TLS; here none speaks it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


class Model:
    """An artifact in a folder, as a run leaves it."""

    def __init__(self, folder: Path, seed: int = 1, weights: int = 300_000) -> None:
        self.folder = folder
        (folder / "plots").mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(Random(seed).randbytes(weights))
        (folder / "tokenizer.json").write_bytes(Random(0).randbytes(200_000))
        (folder / "adapter_config.json").write_text(f'{{"seed": {seed}}}')
        (folder / "plots" / "loss.svg").write_text("<svg/>")
        (folder / "empty").write_bytes(b"")
        self.digest = manifest.write(folder)

    def files(self) -> dict[str, bytes]:
        """Content by path, with the manifest."""
        return read(self.folder)

    def plan(self, uri: str, name: str = "tutor-v3", version: int = 3, **fields: Any) -> DeliverPlan:
        return DeliverPlan.model_validate(
            {
                "name": name,
                "version": version,
                "artifact": {"path": str(self.folder), "digest": self.digest},
                "limits": {"allowPrivateAddresses": True},
                **fields,
                "target": {"uri": uri, **fields.get("target", {})},
            }
        )


def read(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path / "model")


class Stopped(BaseException):
    """Stands for a kill: no handler of an error sees it."""


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are sent in their order, so that a test knows which have arrived."""
    monkeypatch.setattr(at_once, "AT_ONCE", 1)


class Stopping:
    """Ends the delivery after so many bytes of files."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, count: int) -> None:
        self.left -= count
        if self.left <= 0:
            raise Stopped


def secret(folder: Path, **keys: str) -> str:
    """A mounted Secret."""
    folder.mkdir()
    for name, value in keys.items():
        (folder / name).write_text(value)
    return str(folder)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[imageregistry.ImageRegistry]:
    folder = tmp_path_factory.mktemp("registry")
    with imageregistry.serve(folder, imageregistry.basic(folder)) as registry:
        yield registry


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return secret(tmp_path / "keys", username=imageregistry.USER, password=imageregistry.PASSWORD)


@pytest.fixture
def repository(registry: imageregistry.ImageRegistry, tmp_path: Path) -> str:
    """A repository of its own for a test."""
    return f"{registry.host}/team/m{abs(hash(str(tmp_path)))}"


def get(repository: str, path: str, accepted: str = "application/vnd.oci.image.manifest.v1+json") -> requests.Response:
    host, _, name = repository.partition("/")
    accept = {"Accept": accepted}
    login = (imageregistry.USER, imageregistry.PASSWORD)
    return requests.get(f"http://{host}/v2/{name}/{path}", auth=login, headers=accept, timeout=600)
