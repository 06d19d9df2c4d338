"""A list that is older than what the operator knows: an API server that lags behind another one, or behind a watch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.cluster.memory_cluster import Body, MemoryCluster

from hone_operator.apiserver.listing import Listing
from hone_operator.objects.cache import Cache

pytestmark = pytest.mark.pure


class Lagging(MemoryCluster):
    """Its lists do not have the newest objects."""

    lags = False

    async def scan(self, *selection: Any, **options: Any) -> AsyncIterator[Body]:
        async for body in super().scan(*selection, **options):
            if not self.lags:
                yield body


@pytest.mark.faults("O8")
async def test_what_an_old_list_lacks_is_not_taken_for_deleted() -> None:
    cluster, told = Lagging(lambda: "2026-01-02T03:04:05Z"), list[str]()
    listing = Listing(cluster, Cache(), lambda kind, body: told.append(body["metadata"]["name"]))
    cluster.add({"kind": "Dataset", "metadata": {"name": "rows", "namespace": "team"}, "spec": {}, "status": {}})
    await listing.fill()
    cluster.lags = True
    await listing.compare()
    assert listing.cache.get("Dataset", "team", "rows")
    assert told == []
    cluster.remove(cluster.objects["Dataset", "team", "rows"])
    await listing.compare()
    assert listing.cache.get("Dataset", "team", "rows") is None
    assert told == ["rows"]
