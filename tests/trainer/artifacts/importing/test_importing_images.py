"""Models of images of a real registry into the store."""

from __future__ import annotations

import hashlib
import io
import json
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiohttp import web
from support.models.import_place import Place, refused

from hone_api.plan import DeliverPlan, ImportPlan
from hone_dev.cluster import imageregistry
from hone_dev.tools.threaded import served
from hone_trainer.artifacts.delivery import deliver
from hone_trainer.artifacts.delivery.registry import MANIFEST_TYPE, ImageRepository
from hone_trainer.artifacts.importing import importing
from hone_trainer.endpoints.addresses import AllowedNetwork
from hone_trainer.errors import TrainerError
from hone_trainer.store import manifest

pytestmark = pytest.mark.trainer


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[imageregistry.ImageRegistry]:
    folder = tmp_path_factory.mktemp("registry")
    with imageregistry.serve(folder, imageregistry.basic(folder)) as server:
        yield server


class Images:
    """A repository of a registry, and plans that import from it."""

    def __init__(self, place: Place, registry: imageregistry.ImageRegistry) -> None:
        self.place, keys = place, place.folder / "keys"
        keys.mkdir()
        (keys / "username").write_text(imageregistry.USER)
        (keys / "password").write_text(imageregistry.PASSWORD)
        self.keys, self.name = str(keys), f"{registry.host}/team/m{abs(hash(str(place.folder)))}"

    def plan(self, reference: str = ":v3", **fields: Any) -> ImportPlan:
        source = {"secretName": "keys"}
        return self.place.plan(f"oci://{self.name}{reference}", source=source, secretPath=self.keys, **fields)

    def deliver(self) -> str:
        """Push the model as Hone does; the image's digest."""
        digest = manifest.write(self.place.model)
        artifact = {"path": str(self.place.model), "digest": digest}
        target = {"uri": f"oci://{self.name}", "secretName": "keys"}
        plan = {"name": "tutor-v3", "version": 3, "artifact": artifact, "target": target, "secretPath": self.keys}
        return deliver.run(DeliverPlan.model_validate({**plan, "limits": {"allowPrivateAddresses": True}})).digest

    def push(self, kind: str, **members: bytes | str) -> None:
        """Push an image with one layer: files by path, or links to a path."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w" if kind == "zstd" else kind) as tar:
            for name, value in members.items():
                info = tarfile.TarInfo(f"models/{name}")
                info.size = len(value) if isinstance(value, bytes) else 0
                info.type, info.linkname = (tarfile.REGTYPE, "") if info.size else (tarfile.SYMTYPE, str(value))
                tar.addfile(info, io.BytesIO(value if isinstance(value, bytes) else b""))
        host, _, name = self.name.partition("/")
        login = (imageregistry.USER, imageregistry.PASSWORD)
        repository = ImageRepository(host, name, AllowedNetwork(allow_private=True), login, math.inf)
        layers = []
        packed = pa.compress(content.getvalue(), "zstd", asbytes=True) if kind == "zstd" else content.getvalue()
        for blob in (packed, b"{}"):
            digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
            repository.upload(digest, len(blob), lambda blob=blob: iter((blob,)))
            layers.append({"mediaType": "application/octet-stream", "digest": digest, "size": len(blob)})
        body = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": layers[1], "layers": layers[:1]}
        repository.put_manifest("v3", json.dumps(body).encode())


@pytest.fixture
def images(place: Place, registry: imageregistry.ImageRegistry) -> Images:
    return Images(place, registry)


def test_an_image_that_was_delivered_is_imported(
    images: Images, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = images.deliver()
    with monkeypatch.context() as patch:
        patch.setattr(importing, "_digest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            importing.run(images.plan())
    assert images.place.nothing_appeared()
    with monkeypatch.context() as patch:
        patch.setattr(ImageRepository, "download", lambda *_: 1 / 0)  # all layers have arrived
        result = importing.run(images.plan())
    assert (result.commit, result.adapter_rank) == (digest, 4)
    stored = images.place.stored / "adapter" / "adapter_model.safetensors"
    assert stored.read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()
    assert [path.name for path in images.place.stored.iterdir()] == ["adapter"]
    assert importing.run(images.plan(f"@{digest}", folder="import-2/files")).commit == digest


@pytest.mark.parametrize("kind", ["w:gz", "zstd"])
def test_layers_of_others_may_be_packed(images: Images, kind: str) -> None:
    images.push(kind, **{path.name: path.read_bytes() for path in images.place.model.iterdir()})
    assert importing.run(images.plan()).left_out == ["training_args.bin"]


@pytest.mark.parametrize(
    ("members", "code", "words"),
    [
        ({"LICENSE": "/secrets/source/password"}, "SourceRefused", "models/LICENSE is not a plain file"),
        ({"../../evil": b"x"}, "SourceRefused", "models/../../evil is not a plain file"),
        ({"big.safetensors": bytes(20_000)}, "SourceTooLarge", "limit 9000"),
        ({"adapter_model.bin": b"x"}, "UnsafeModel", "pickles (adapter_model.bin)"),
    ],
)
def test_an_image_with_anything_but_files_of_a_model_is_refused(
    images: Images, members: dict[str, Any], code: str, words: str
) -> None:
    images.push("w:gz", **members)
    seen, message = refused(images.plan(limits={"allowPrivateAddresses": True, "maxSourceBytes": 9000}))
    assert (seen, words in message) == (code, True), message
    assert not (images.place.folder / "evil").exists()
    assert images.place.nothing_appeared()


def test_a_tag_that_is_not_there_and_wrong_credentials_are_the_sources(images: Images) -> None:
    assert refused(images.plan(":v9"))[0] == "SourceNotFound"
    (Path(images.keys) / "password").write_text("wrong")
    assert refused(images.plan())[0] == "SourceNotFound"


def test_a_blob_is_read_from_where_the_registry_keeps_it_without_its_credentials() -> None:
    content, seen = b"layer" * 1000, []
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"

    async def kept(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=content)

    def redirect(place: str) -> web.Application:
        async def answer(request: web.Request) -> web.Response:
            seen.append(request.headers.get("Authorization"))
            return web.Response(status=307, headers={"Location": f"{place}/kept"})

        async def login(request: web.Request) -> web.Response:
            return web.json_response({}, status=200 if "Authorization" in request.headers else 401)

        application = web.Application()
        application.router.add_get("/v2/team/m/blobs/{digest}", answer)
        application.router.add_get("/v2/team/m/manifests/{tag}", login)
        application.router.add_get("/v2/", lambda request: login(request))
        return application

    store = web.Application()
    store.router.add_get("/kept", kept)
    with served(store) as place, served(redirect(place)) as url:
        host = url.removeprefix("http://")
        repository = ImageRepository(host, "team/m", AllowedNetwork(allow_private=True), ("ada", "secret"), math.inf)
        repository.manifest("v1")
        assert b"".join(repository.download(digest, len(content))) == content
        assert [header is not None for header in seen] == [True, False]
        with pytest.raises(TrainerError) as caught:
            list(repository.download(digest, len(content) + 1))
        assert caught.value.code == "DeliveryDamaged"
