"""A write is checked in the same step in which its bytes leave: whoever has lost the Lease sends nothing more."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientConnectionError, web
from aiohttp.test_utils import TestServer
from kubernetes.aio.config import kube_config

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import ConflictError
from hone_operator.process.leadership import Leadership

pytestmark = pytest.mark.pure
JOB = {
    "apiVersion": "hone.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"namespace": "a", "name": "b", "uid": "1"},
}


class LostError(Exception):
    """In place of the end of the process."""


class Server:
    """An API server that takes everything."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def take(self, request: web.Request) -> web.Response:
        self.taken.append(request.method)
        return web.json_response(JOB)


def kubeconfig(path: Path, url: str) -> str:
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    body = {
        "current-context": "x",
        "contexts": [context],
        "clusters": [{"name": "x", "cluster": {"server": url}}],
        "users": [{"name": "x", "user": {}}],
    }
    path.write_text(yaml.safe_dump(body))
    return str(path)


@pytest.fixture
async def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server, clusters = Server(), []
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.take)
    async with TestServer(application) as running:
        path = kubeconfig(tmp_path / "config", str(running.make_url("")).rstrip("/"))
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", path)

        async def made(fence: Callable[[], None]) -> tuple[Cluster, Server]:
            clusters.append(await Cluster.connect(2, fence))
            return clusters[-1], server

        yield made
        for cluster in clusters:
            await cluster.close()


async def write(cluster: Cluster, verb: str) -> None:
    await (cluster.create(JOB) if verb == "POST" else cluster.delete("FineTuneJob", JOB))


@pytest.mark.parametrize("verb", ["POST", "DELETE"])
@pytest.mark.parametrize("checks", [1, 2])
@pytest.mark.faults("O12")
async def test_a_lease_that_ends_between_a_check_and_the_next_step_stops_the_write(connect, verb, checks):
    """As if the process were stopped, and went on, at every place where another task can work."""
    seen = {"checks": 0, "lost": False}

    def fence() -> None:
        if seen["lost"]:
            raise LostError
        seen["checks"] += 1
        if seen["checks"] == checks:
            asyncio.get_running_loop().call_soon(seen.update, {"lost": True})

    cluster, server = await connect(fence)
    with pytest.raises((LostError, ClientConnectionError)):  # aiohttp wraps what happens while a body is sent
        await write(cluster, verb)
    assert server.taken == []


@pytest.mark.parametrize("verb", ["POST", "DELETE"])
async def test_who_holds_the_lease_writes(connect, verb):
    cluster, server = await connect(lambda: None)
    await write(cluster, verb)
    assert server.taken == [verb]


class Leases:
    """One Lease, which the last renewal of its holder changes after it was read."""

    def __init__(self) -> None:
        spec = {"holderIdentity": "first"}
        self.body: dict[str, Any] = {"metadata": {"resourceVersion": "1"}, "spec": spec}
        self.late = True

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
        read = copy.deepcopy(self.body)
        if self.late:
            self.late, self.body["metadata"]["resourceVersion"] = False, "2"
        return read

    async def create(self, body: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("it exists")

    async def replace(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["metadata"] != self.body["metadata"]:
            raise ConflictError(409, "Conflict", "changed")
        self.body = body
        return body


async def test_a_lease_is_given_back_also_when_its_last_renewal_arrives_in_between():
    leases = Leases()
    await Leadership(leases, "hone", "hone", "first").release()
    assert leases.body["spec"]["holderIdentity"] == ""
