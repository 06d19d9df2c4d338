"""Objects that can be read and are so large that their status cannot be applied, or not be stored at all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from support.cluster.hand import Namespace, fine_tune_job
from support.cluster.kube import HONE
from support.cluster.memory_cluster import Body, MemoryCluster
from support.cluster.platforms import platform_with

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import ConflictError, TooLargeError, UnreadableObjectError
from hone_operator.controllers import Controllers
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key
from hone_operator.writing.unreadable import Unreadable

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUN = Key("FineTuneJob", "ns", "run")


@pytest.mark.apiserver
async def test_a_status_is_written_where_the_managers_of_the_fields_cannot_be_stored(
    cluster: Cluster, namespace: Namespace
) -> None:
    labels = {f"a/{n}": "" for n in range(60_000)}
    spec = {"source": {"uri": "pvc://data/rows.jsonl"}}
    namespace.create("Dataset", "rows", spec, metadata={"name": "rows", "labels": labels})
    body = await cluster.get("Dataset", namespace.name, "rows")
    assert body
    await cluster.apply_status("Dataset", body, {"phase": "Pending", "digest": "sha256:" + "a" * 64})
    await cluster.apply_status("Dataset", body, {"phase": "Materializing"})
    # Replaced as a whole, as by an apply.
    assert namespace.get("Dataset", "rows")["status"] == {"phase": "Materializing"}
    another = {**body, "metadata": {**body["metadata"], "uid": "another"}}
    with pytest.raises(ConflictError):
        await cluster._replace_status(f"{HONE}/namespaces/{namespace.name}/datasets/rows/status", "another", {})
    with pytest.raises(ConflictError):
        await cluster.apply_status("Dataset", another, {"phase": "Pending"})


class Full(MemoryCluster):
    """An API server that has no room for a status, or whose Jobs cannot be read."""

    tried = 0
    full = True
    unreadable: tuple[str, ...] = ()

    async def apply_status(self, kind: str, owner: Mapping[str, Any], status: Mapping[str, Any]) -> Body:
        self.tried += 1
        if self.full:
            raise TooLargeError(500, "500", "etcdserver: request is too large")
        return await super().apply_status(kind, owner, status)

    async def get(self, kind: str, namespace: str, name: str) -> Body | None:
        if kind in self.unreadable and (kind, namespace, name) in self.objects:
            raise UnreadableObjectError(0, "TooLarge", f"{kind} {name}: it has more than 1048576 bytes")
        return await super().get(kind, namespace, name)


def operator(cluster: Full) -> tuple[Controllers, Cache, list[Key]]:
    cache, asked = Cache(), list[Key]()
    unreadable = Unreadable(request=asked.append)
    controllers = Controllers(cluster, cache, platform_with("trainer"), now=lambda: NOW, unreadable=unreadable)
    return controllers, cache, asked


@pytest.mark.pure
async def test_what_has_no_room_for_a_status_is_left_alone_until_it_changes() -> None:
    cluster = Full(lambda: "2026-01-02T03:04:05Z")
    controllers, cache, asked = operator(cluster)
    counted: list[tuple[str, str]] = []
    controllers.unreadable.count = lambda kind, reason: counted.append((kind, reason))
    body = cluster.add({"kind": "FineTuneJob", "metadata": {"name": "run", "namespace": "ns"}, "spec": fine_tune_job()})
    cluster.tell(cache)
    for _ in range(5):
        await controllers.process(RUN)
    assert (cluster.tried, counted) == (1, [("FineTuneJob", "Unwritable")])
    for key in asked:
        await controllers.process(key)
    (event,) = cluster.of("Event")
    assert (event["reason"], event["type"]) == ("Unwritable", "Warning")
    assert "Remove labels, annotations" in event["note"]

    cluster.full = False
    cluster.touch(body, "user")
    cluster.tell(cache)
    await controllers.process(RUN)
    assert cluster.objects["FineTuneJob", "ns", "run"]["status"]["phase"]


@pytest.mark.pure
async def test_a_job_that_cannot_be_read_takes_the_name_of_the_next_one() -> None:
    cluster = Full(lambda: "2026-01-02T03:04:05Z")
    cluster.full = False
    controllers, cache, _ = operator(cluster)
    for claim in ("data", "hone-store"):
        cluster.add({"kind": "PersistentVolumeClaim", "metadata": {"name": claim, "namespace": "ns"}, "spec": {}})
    cluster.add(
        {
            "kind": "Dataset",
            "metadata": {"name": "rows", "namespace": "ns"},
            "spec": {"source": {"uri": "pvc://data/rows.jsonl"}},
        }
    )
    key = Key("Dataset", "ns", "rows")
    cluster.tell(cache)
    await controllers.process(key)
    (job,) = cluster.of("Job")
    cluster.unreadable = ("Job",)
    cache.remove("Job", job)
    cluster.objects["Dataset", "ns", "rows"]["status"] = {}
    cluster.touch(cluster.objects["Dataset", "ns", "rows"], "lost")
    cluster.tell(cache, "Job")
    await controllers.process(key)
    conditions = cluster.objects["Dataset", "ns", "rows"]["status"]["conditions"]
    assert any(c["reason"] == "NameTaken" and "delete it" in c["message"] for c in conditions), conditions
