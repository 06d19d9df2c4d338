"""A reference to an object that does not exist: the status names the one that was probably meant."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from support.cluster.memory_cluster import MemoryCluster
from support.cluster.platforms import platform_with

from hone_operator.controllers import Controllers
from hone_operator.objects.cache import Cache
from hone_operator.observe.children import MOST_COMPARED
from hone_operator.queueing.routing import Key

pytestmark = pytest.mark.pure
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (["banking", "sports"], "create it. Did you mean banking?"),
        (["sports"], "create it."),
        ([], "create it."),
        (["banking", *(f"rows-{number}" for number in range(MOST_COMPARED))], "create it."),
    ],
)
def test_a_missing_dataset(here: list[str], words: str) -> None:
    cluster, cache = MemoryCluster(lambda: NOW.isoformat()), Cache()
    for namespace, names in (("ns", here), ("other", ["bankin-2"])):
        for name in names:
            spec = {"source": {"uri": "pvc://data/rows.jsonl"}}
            cluster.add({"kind": "Dataset", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
    spec = {"model": {"uri": "hf://org/model"}, "datasets": [{"name": "bankin"}], "output": {"modelName": "tutor"}}
    cluster.add({"kind": "FineTuneJob", "metadata": {"name": "run", "namespace": "ns"}, "spec": spec})
    cluster.tell(cache)
    asyncio.run(
        Controllers(cluster, cache, platform_with("trainer"), now=lambda: NOW).process(Key("FineTuneJob", "ns", "run"))
    )
    status = cluster.objects["FineTuneJob", "ns", "run"]["status"]
    (message,) = (c["message"] for c in status["conditions"] if c["type"] == "DatasetReady")
    assert message == f"Dataset bankin does not exist in this namespace: {words}"
