"""Servers that fail at any request of a delivery: half a model never looks complete, and the next attempt completes it.

A proxy between the delivery and a real server numbers the requests, and breaks one of them, or all from one on.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import requests
from aiohttp import web
from support.servers.signing_key import Key

from hone_api.dataset.source import S3
from hone_api.plan import DeliverPlan
from hone_dev.cluster import imageregistry, objectstore
from hone_dev.tools.threaded import served
from hone_trainer.artifacts.delivery import deliver
from hone_trainer.endpoints import s3
from hone_trainer.errors import TrainerError

from .conftest import Model, read, secret

FAULTS = {
    "503": ("D2", "DestinationUnreachable"),
    "500": ("D1", "DestinationUnreachable"),
    "507": ("D3", "DestinationFull"),
    "no space": ("D3", "DestinationFull"),
    "quota": ("D3", "DestinationFull"),
    "half of the body": ("D1", "DestinationUnreachable"),
    "the answer is lost": ("D1", "DestinationUnreachable"),
}
"""Of the table in docs/reliability.md, and the code of an attempt that the fault ends."""


def _registry_says(code: str, message: str, detail: Any) -> str:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": detail}]})


def _bucket_says(code: str, message: str) -> str:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"


_ENOSPC = "write /var/lib/registry/docker/registry/v2/repositories/team/m/_uploads/0/data: no space left on device"
_FULL = {
    # Debian's registry, MinIO whose disk fills up during the write; Harbor, Ceph and Versity's gateway.
    ("oci", "no space"): (500, _registry_says("UNKNOWN", "unknown error", _ENOSPC)),
    ("s3", "no space"): (500, _bucket_says("InternalError", "internal error, cause(no space left on device)")),
    ("oci", "quota"): (
        403,
        _registry_says(
            "DENIED",
            "adding 2.1 MiB of storage resource, which when updated to current "
            "usage of 8.3 MiB will exceed the configured upper limit of 10.0 MiB.",
            None,
        ),
    ),
    ("s3", "quota"): (403, _bucket_says("QuotaExceeded", "Your request was denied due to quota exceeded.")),
}
"""What real servers answer to a write they have no room for."""


class _CutError(Exception):
    """The connection ends here."""


async def _half(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    await asyncio.sleep(0.02)  # it is on its way
    raise _CutError


@dataclass
class Breaking:
    """Passes requests on to `upstream`, except those that the fault is about."""

    upstream: str
    scheme: str
    fault: str = ""
    at: int = 0
    """Number of the first request that is broken, from 1; 0: none."""
    goes_on: bool = True
    """Whether all later ones are broken as well."""
    seen: int = 0
    url: str = field(default="", init=False)

    def set(self, fault: str = "", at: int = 0, goes_on: bool = True) -> None:
        self.fault, self.at, self.goes_on, self.seen = fault, at, goes_on, 0

    def application(self) -> web.Application:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._pass_on)
        return application

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        self.seen += 1
        broken = self.at and (self.seen == self.at or (self.goes_on and self.seen > self.at))
        body = await request.read()
        if not broken:
            return await self._forward(request, body)
        if self.fault.isdigit():
            return web.Response(status=int(self.fault), body=b"" if request.method == "HEAD" else b"{}")
        if full := _FULL.get((self.scheme, self.fault)):
            reads = request.method in ("GET", "HEAD", "DELETE")
            return await self._forward(request, body) if reads else web.Response(status=full[0], text=full[1])
        with suppress(aiohttp.ClientError, _CutError):
            await self._forward(request, body if self.fault == "the answer is lost" else _half(body))
        assert request.transport
        request.transport.abort()
        return web.Response()

    async def _forward(self, request: web.Request, body: bytes | AsyncIterator[bytes]) -> web.Response:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, self.upstream + request.raw_path, data=body, headers=request.headers
            ) as answer,
        ):
            content = await answer.read()
            headers = [(k, v) for k, v in answer.headers.items() if k not in ("Transfer-Encoding", "Content-Encoding")]
            response = web.Response(status=answer.status, body=content, headers=headers)
            if request.method == "HEAD":
                response.headers["Content-Length"] = answer.headers.get("Content-Length", "0")
            return response


@dataclass
class Target:
    """A real server behind the proxy, and how to look at what it has."""

    proxy: Breaking
    plan: Callable[[Model, str], DeliverPlan]
    is_complete: Callable[[str], bool]
    """Whether a reader finds the model under this name."""
    files: Callable[[str], dict[str, bytes]]


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    with ExitStack() as stack:
        store = stack.enter_context(objectstore.serve(tmp_path_factory.mktemp("s3")))
        registry = stack.enter_context(imageregistry.serve(tmp_path_factory.mktemp("registry")))
        bucket, image = Breaking(store.endpoint, "s3"), Breaking(f"http://{registry.host}", "oci")
        for proxy in (bucket, image):
            proxy.url = stack.enter_context(served(proxy.application()))
        keys = {s3.KEY: store.access_key, s3.SECRET: store.secret_key}
        path = secret(tmp_path_factory.mktemp("keys") / "keys", **keys)
        yield {"s3": _bucket(store, bucket, path), "oci": _image(registry, image)}


def _bucket(store: objectstore.ObjectStore, proxy: Breaking, keys: str) -> Target:
    folder = store.bucket("models")
    place = {"s3": S3(endpoint=proxy.url), "secretName": "keys"}
    return Target(
        proxy,
        lambda model, name: model.plan("s3://models/team", name, target=place, secretPath=keys),
        lambda name: (folder / "team" / name / "manifest.json").is_file(),
        lambda name: read(folder / "team" / name),
    )


def _image(registry: imageregistry.ImageRegistry, proxy: Breaking) -> Target:
    from .test_image import pulled

    host = proxy.url.removeprefix("http://")
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}

    def files(name: str) -> dict[str, bytes]:
        found = pulled(f"{registry.host}/team/{name}", "v3")
        return {path.removeprefix("models/"): text for path, text in found.items()}

    return Target(
        proxy,
        lambda model, name: model.plan(f"oci://{host}/team/{name}", name),
        lambda name: (
            requests.get(f"http://{registry.host}/v2/team/{name}/manifests/v3", headers=accept, timeout=600).ok
        ),
        files,
    )


def broken(target: Target, model: Model, name: str, fault: str, at: int, goes_on: bool) -> list[str]:
    """What is wrong with a delivery under this fault, and with the next attempt."""
    wrong = []
    plan = target.plan(model, name)
    target.proxy.set(fault, at, goes_on)
    try:
        deliver.run(plan)
    except TrainerError as error:
        if error.code != FAULTS[fault][1]:
            wrong.append(f"code {error.code}: {error.message}")
    else:
        if not target.is_complete(name):
            wrong.append("it says that it is delivered")
    if target.is_complete(name) and target.files(name) != model.files():
        wrong.append("half a model looks complete")
    target.proxy.set()
    deliver.run(plan)
    if target.files(name) != model.files():
        wrong.append("the next attempt did not complete it")
    return wrong


def sweep(targets: dict[str, Target], model: Model, cells: Callable[[int], list[Any]]) -> list[list[Any]]:
    """[fault, name, held] of each cell; `cells` gets the number of requests of a delivery that nothing disturbs."""
    tried = []
    for scheme, target in targets.items():
        target.proxy.set()
        # Where no earlier sweep has delivered it: what is there already needs half of the requests.
        deliver.run(target.plan(model, f"undisturbed-{uuid4().hex[:8]}"))
        for fault, at, goes_on in cells(target.proxy.seen):
            name = f"m{abs(hash((scheme, fault, at, goes_on)))}"
            wrong = broken(target, model, name, fault, at, goes_on)
            words = f"{scheme}: {fault} {'from' if goes_on else 'at'} request {at}"
            tried.append([FAULTS[fault][0], "; ".join([words, *wrong]), not wrong])
    return tried


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause before a request is sent again."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.mark.trainer
@pytest.mark.faults("D1")
def test_a_server_that_fails_at_some_requests(
    targets: dict[str, Target], model: Model, at_once: None, record_property: Any
) -> None:
    """The sample: each fault with each server, at moments that are spread over the delivery."""
    names = list(FAULTS)
    tried = sweep(
        targets,
        model,
        lambda count: [(name, 1 + i * (count - 1) // (len(names) - 1), i % 2 == 0) for i, name in enumerate(names)],
    )
    record_property("faults", tried)
    assert [name for _, name, held in tried if not held] == []
    assert len(tried) == 2 * len(FAULTS)


@pytest.mark.trainer
@pytest.mark.long
@pytest.mark.parametrize("fault", [pytest.param(f, marks=pytest.mark.faults(i), id=f) for f, (i, _) in FAULTS.items()])
def test_a_server_that_fails_at_any_request(
    targets: dict[str, Target], model: Model, at_once: None, record_property: Any, fault: str
) -> None:
    tried = sweep(
        targets,
        model,
        lambda count: [(fault, at, goes_on) for at in range(1, count + 1) for goes_on in (False, True)],
    )
    record_property("faults", tried)
    assert [name for _, name, held in tried if not held] == []


def _altered(content: bytes, where: str) -> bytes:
    if where in ("cut", "longer"):
        return content[:-1] if where == "cut" else content + b"\0"
    place = {"first byte": 0, "middle": len(content) // 2, "last byte": -1}[where]
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


@pytest.mark.pure
@pytest.mark.faults("D4")
def test_a_model_that_was_altered_at_any_place_does_not_leave(
    model: Model, tmp_path: Path, record_property: Any
) -> None:
    """Each file of a signed model, at each place: not a byte of it is complete at the target."""
    key, tried = Key(tmp_path / "key"), []
    key.sign(model.folder, model.digest)
    artifact = {"path": str(model.folder), "digest": model.digest, "trusted": [key.public]}
    plan = model.plan("pvc://models", artifact=artifact, targetPath=str(tmp_path / "volume"))
    for path, content in model.files().items():
        for where in ("first byte", "middle", "last byte", "cut", "longer", "gone"):
            if where == "gone":
                (model.folder / path).unlink()
            elif content or where == "longer":
                (model.folder / path).write_bytes(_altered(content, where))
            else:
                continue
            code = ""
            shutil.rmtree(tmp_path / "volume", ignore_errors=True)  # or a file that arrived before is not read again
            try:
                deliver.run(plan)
            except TrainerError as error:
                code = str(error.code)
            held = code in ("ManifestMismatch", "SignatureInvalid", "SignatureMissing")
            held = held and not (tmp_path / "volume" / "tutor-v3").exists()
            tried.append(["D4", f"{path}: {where} ({code or 'delivered'})", held])
            (model.folder / path).write_bytes(content)
    record_property("faults", tried)
    assert [name for _, name, held in tried if not held] == []
    assert len(tried) > 40
    deliver.run(plan)
    assert read(tmp_path / "volume" / "tutor-v3") == model.files()
