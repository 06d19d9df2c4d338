"""kopf's first watch begins at our own list, against a real API server: nothing is listed twice, nothing is missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import kopf
import pytest
from hand import Namespace
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from hone_operator import handlers
from hone_operator.apiserver import watchguard
from hone_operator.apiserver.cluster import Cluster
from hone_operator.objects import decoding
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key
from hone_operator.queueing.workqueue import WorkQueue

pytestmark = pytest.mark.apiserver
SOURCE = {"source": {"uri": "pvc://data/rows.jsonl"}}


@pytest.fixture
async def watches(apiserver: Path, namespace: Namespace) -> AsyncIterator[handlers.Watches]:
    """The watches of one namespace, whose cache is not filled yet."""
    configuration = Configuration()
    await config.load_kube_config(str(apiserver), client_configuration=configuration)
    cluster = Cluster(ApiClient(configuration))

    async def nothing(key: Key) -> None: ...

    yield handlers.Watches(cluster, Cache(), WorkQueue(nothing), [namespace.name])
    await cluster.close()


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many Datasets each list of kopf had that was read."""
    counts: list[int] = []
    read = decoding.decode_list_aside

    async def counted(*arguments: Any) -> decoding.Listed:
        listed = await read(*arguments)
        if (listed.rest.get("kind") or "").startswith("Dataset"):
            counts.append(len(listed.items))
        return listed

    monkeypatch.setattr(watchguard.decoding, "decode_list_aside", counted)
    return counts


@asynccontextmanager
async def watching(watches: handlers.Watches, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """kopf, as the operator starts it."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    registry, settings, stop = kopf.OperatorRegistry(), kopf.OperatorSettings(), asyncio.Event()
    watches.register(registry)
    handlers.configure(settings)
    namespaces = [each for each in watches.listing.namespaces if each]
    running = asyncio.create_task(
        kopf.operator(registry=registry, settings=settings, standalone=True, namespaces=namespaces, stop_flag=stop)
    )
    try:
        yield
    finally:
        stop.set()
        with suppress(asyncio.CancelledError):
            await running


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(300):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def suspended(watches: handlers.Watches, name: str) -> Any:
    body = watches.cache.get("Dataset", watches.listing.namespaces[0] or "", name)
    return body and body["spec"].get("suspend")


async def test_the_watch_brings_what_came_changed_and_went_since_our_list(
    watches: handlers.Watches, namespace: Namespace, apiserver: Path, monkeypatch: pytest.MonkeyPatch, lists: list[int]
) -> None:
    for name in ("same", "changes", "goes"):
        namespace.create("Dataset", name, SOURCE)
    await watches.listing.fill()
    namespace.create("Dataset", "comes", SOURCE)
    namespace.patch("Dataset", "changes", {"spec": {"suspend": True}})
    namespace.delete("Dataset", "goes")
    lists.clear()
    async with watching(watches, apiserver, monkeypatch):
        await until(lambda: suspended(watches, "comes") is False)
        await until(lambda: suspended(watches, "changes") is True)
        await until(lambda: watches.cache.get("Dataset", namespace.name, "goes") is None)
        assert suspended(watches, "same") is False
        namespace.patch("Dataset", "same", {"spec": {"suspend": True}})
        await until(lambda: suspended(watches, "same") is True)
    assert lists == [], "the watches began at our own lists"


async def test_kopf_lists_where_our_list_is_too_old_to_begin_at(
    watches: handlers.Watches, namespace: Namespace, apiserver: Path, monkeypatch: pytest.MonkeyPatch, lists: list[int]
) -> None:
    await watches.listing.fill()
    namespace.create("Dataset", "comes", SOURCE)
    monkeypatch.setattr(watches.listing, "_listed_at", {("Dataset", namespace.name): "1"})
    lists.clear()
    async with watching(watches, apiserver, monkeypatch):
        await until(lambda: watches.cache.get("Dataset", namespace.name, "comes") is not None)
    assert lists[-1] == 1, "the API server answered 410 Gone"
