"""Watches begin at our own lists, against a real API server: nothing is listed twice, nothing is missed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from support.cluster.hand import Namespace

from hone_operator.apiserver import reflector
from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import RefusedError
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key
from hone_operator.queueing.workqueue import WorkQueue
from hone_operator.watches import Watches

pytestmark = pytest.mark.apiserver
SOURCE = {"source": {"uri": "pvc://data/rows.jsonl"}}


@pytest.fixture
def watches(cluster: Cluster, namespace: Namespace) -> Watches:
    """The watches of one namespace, whose cache is not filled yet."""

    async def nothing(key: Key) -> None: ...

    return Watches(cluster, Cache(), WorkQueue(nothing), [namespace.name])


@pytest.fixture
def compared(watches: Watches, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds whose lists were compared before a watch."""
    kinds: list[str] = []
    compare = watches.listing.compare_one

    async def counted(kind: str, namespace: str | None) -> str:
        kinds.append(kind)
        return await compare(kind, namespace)

    monkeypatch.setattr(watches.listing, "compare_one", counted)
    return kinds


@asynccontextmanager
async def watching(watches: Watches) -> AsyncIterator[None]:
    running = asyncio.create_task(watches.run())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(300):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def suspended(watches: Watches, name: str) -> Any:
    body = watches.cache.get("Dataset", watches.listing.namespaces[0] or "", name)
    return body and body["spec"].get("suspend")


async def test_the_watch_brings_what_came_changed_and_went_since_our_list(
    watches: Watches, namespace: Namespace, compared: list[str]
) -> None:
    for name in ("same", "changes", "goes"):
        namespace.create("Dataset", name, SOURCE)
    await watches.listing.fill()
    namespace.create("Dataset", "comes", SOURCE)
    namespace.patch("Dataset", "changes", {"spec": {"suspend": True}})
    namespace.delete("Dataset", "goes")
    async with watching(watches):
        await until(lambda: suspended(watches, "comes") is False)
        await until(lambda: suspended(watches, "changes") is True)
        await until(lambda: watches.cache.get("Dataset", namespace.name, "goes") is None)
        assert suspended(watches, "same") is False
        namespace.patch("Dataset", "same", {"spec": {"suspend": True}})
        await until(lambda: suspended(watches, "same") is True)
    assert compared == [], "the watches began at our own lists"


async def test_lists_are_compared_where_our_list_is_too_old_to_begin_at(
    watches: Watches, namespace: Namespace, compared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await watches.listing.fill()
    namespace.create("Dataset", "comes", SOURCE)
    monkeypatch.setitem(watches.listing._listed_at, ("Dataset", namespace.name), "1")
    async with watching(watches):
        await until(lambda: watches.cache.get("Dataset", namespace.name, "comes") is not None)
        assert compared == ["Dataset"], "the API server answered 410 Gone"
        namespace.patch("Dataset", "comes", {"spec": {"suspend": True}})
        await until(lambda: suspended(watches, "comes") is True)
    assert compared == ["Dataset"]


async def test_a_watch_that_is_ended_goes_on_where_it_was(
    watches: Watches, namespace: Namespace, compared: list[str]
) -> None:
    await watches.listing.fill()
    async with watching(watches):
        namespace.create("Dataset", "first", SOURCE)
        await until(lambda: suspended(watches, "first") is False)
        for reflector in watches.reflectors:
            reflector.begin_again()
        namespace.create("Dataset", "second", SOURCE)
        await until(lambda: suspended(watches, "second") is False)
    assert compared == []


async def test_a_refusal_that_lasts_ends_the_operator(watches: Watches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights that a release replaces are back in a moment; others never are."""
    monkeypatch.setattr(reflector, "PAUSES", (0.01, 0.02))
    calls = 0

    async def refused(*_: Any) -> AsyncIterator[bytes]:
        nonlocal calls
        calls += 1
        raise RefusedError(403, "Forbidden", "datasets is forbidden")
        yield b""

    await watches.listing.fill()
    monkeypatch.setattr(watches.listing.cluster, "watch", refused)
    with pytest.raises(ExceptionGroup) as raised:
        await watches.run()
    assert raised.group_contains(RefusedError, match="datasets is forbidden")
    assert calls >= 3


def event(name: str) -> bytes:
    body = {"metadata": {"namespace": "a", "name": name, "uid": name, "resourceVersion": name}}
    return json.dumps({"type": "ADDED", "object": body}).encode() + b"\n"


async def test_watches_that_are_cut_off_add_up_to_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer may cut each of them, and an API server that starts refuses for a moment what it allows."""
    monkeypatch.setattr(reflector, "PAUSES", (0.01, 0.02))
    asked: list[str] = []
    taken: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.query["resourceVersion"])
        if len(asked) == 3:
            return web.json_response("a proxy cannot reach the API server", status=502)
        if len(asked) == 6:
            return web.json_response({"message": "RBAC is not there yet"}, status=403)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(event(str(len(asked))))
        if len(asked) == 1:  # it ends within a line, and nothing is wrong with the connection
            await response.write(event("9")[:-20])
            await response.write_eof()
        elif request.transport:
            await asyncio.sleep(0.01)
            request.transport.abort()
        return response

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    async with TestServer(application) as server:
        configuration = Configuration()
        configuration.host = str(server.make_url("")).rstrip("/")
        cluster = Cluster(ApiClient(configuration))
        skipped: list[Any] = []
        watch = reflector.Reflector(
            cluster,
            "Dataset",
            None,
            "",
            take=lambda kind, body, is_deleted: taken.append(body["metadata"]["name"]),
            is_known=lambda kind, body: False,
            compare=pytest.fail,
            note=lambda kind, why: skipped.append(why),
            version="0",
        )
        running = asyncio.create_task(watch.run())
        await until(lambda: "8" in taken or running.done())
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await cluster.close()
    assert taken[:6] == ["1", "2", "4", "5", "7", "8"]
    assert asked[:8] == ["0", "1", "2", "2", "4", "5", "5", "7"]
    assert skipped == [], "the end of a line was cut off, and came again"
