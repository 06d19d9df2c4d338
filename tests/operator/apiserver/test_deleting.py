"""A deletion that was answered with a conflict: of another object with this name, or of the very one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.config import kube_config

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import ConflictError

pytestmark = pytest.mark.pure
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "team", "name": "ranks", "uid": "1"}}


async def delete(live: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Delete SERVICE at an API server that answers 409 and has an object of this uid."""

    async def answer(request: web.Request) -> web.Response:
        if request.method == "DELETE":
            return web.json_response({"kind": "Status", "reason": "Conflict", "code": 409}, status=409)
        if live is None:
            return web.json_response({"kind": "Status", "reason": "NotFound", "code": 404}, status=404)
        return web.json_response({**SERVICE, "metadata": {**SERVICE["metadata"], "uid": live}})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(application) as server:
        (folder / "config").write_text(
            yaml.safe_dump(
                {
                    "current-context": "x",
                    "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                    "clusters": [{"name": "x", "cluster": {"server": str(server.make_url("")).rstrip("/")}}],
                    "users": [{"name": "x", "user": {}}],
                }
            )
        )
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(folder / "config"))
        cluster = await Cluster.connect(2)
        try:
            return await cluster.delete("Service", SERVICE)
        finally:
            await cluster.close()


async def test_the_very_object_is_deleted_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConflictError):
        await delete("1", tmp_path, monkeypatch)


@pytest.mark.parametrize("live", ["2", None])
async def test_another_with_its_name_stays(live: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await delete(live, tmp_path, monkeypatch) is False
