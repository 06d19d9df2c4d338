"""A run that the operator has ended stays ended when its status and its Jobs are lost: a record of it is kept apart."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.cluster.memory_cluster import Body, MemoryCluster
from support.cluster.platforms import platform_with

from hone_operator.controllers import Controllers
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key
from hone_operator.reconcile.core.conditions import is_true

pytestmark = pytest.mark.pure
DIGEST = "sha256:" + "a" * 64


class World:
    """A namespace with a run that has an hour."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.cluster, self.cache = MemoryCluster(self.time), Cache()
        self.operator = Controllers(self.cluster, self.cache, platform_with("trainer"), now=lambda: self.now)
        for claim in ("models", "hone-store"):
            self._add("PersistentVolumeClaim", claim, {})
        ready = {"type": "Ready", "status": "True", "reason": "x", "message": "", "lastTransitionTime": self.time()}
        splits = [{"name": "train", "rows": 9}, {"name": "validation", "rows": 9}]
        status = {"observedGeneration": 1, "conditions": [ready], "digest": DIGEST, "splits": splits}
        self._add("Dataset", "rows", {"source": {"uri": "pvc://data/rows.jsonl"}}, status)
        model, output = {"uri": "pvc://models/base"}, {"modelName": "tutor"}
        spec = {"model": model, "datasets": [{"name": "rows"}], "output": output, "deadline": "1h"}
        self.job = self._add("FineTuneJob", "run", spec)

    def time(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _add(self, kind: str, name: str, spec: Body, status: Body | None = None) -> Body:
        meta = {"name": name, "namespace": "ns"}
        return self.cluster.add(
            {"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": spec, "status": status or {}}
        )

    async def look(self) -> None:
        """Twice: of what a decision writes, another may be made."""
        for _ in range(2):
            self.cluster.tell(self.cache)
            await self.operator.process(Key("FineTuneJob", "ns", "run"))

    async def end(self) -> None:
        """The run begins, and its hour is over."""
        await self.look()
        assert self.cluster.of("Job"), "it has begun"
        self.now += timedelta(hours=1)
        await self.look()
        assert self.job["status"]["failure"]["code"] == "DeadlineExceeded"

    def lose(self) -> None:
        """The status, and the Jobs."""
        self.job["status"] = {}
        self.cluster.touch(self.job, "lost")
        for job in self.cluster.of("Job"):
            self.cluster.remove(job)

    def record(self) -> Any:
        (found,) = (c for c in self.cluster.of("ConfigMap") if "failure.json" in c["data"])
        return found


async def test_it_does_not_begin_again() -> None:
    world = World()
    await world.end()
    was = world.job["status"]
    world.lose()
    world.now += timedelta(hours=1)
    await world.look()
    assert not world.cluster.of("Job")
    status = world.job["status"]
    assert (status["phase"], status["failure"]) == ("Failed", was["failure"])
    assert status["completionTime"] == was["completionTime"]
    assert is_true(world.job, "Finished")
    assert [c["reason"] for c in status["conditions"] if c["type"] == "Running"] == ["RestoredFromRecord"]


async def test_the_record_goes_with_the_run() -> None:
    world = World()
    await world.end()
    assert world.record()["immutable"]
    (owner,) = world.record()["metadata"]["ownerReferences"]
    assert owner["uid"] == world.job["metadata"]["uid"]


@pytest.mark.attack("plans")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 3000,
        '{"code": "Nonsense", "message": ""}',
        '{"code": [], "message": ""}',
        '{"code": "OutOfMemory"}',
        '{"code": "OutOfMemory", "message": "\\ud800"}',
        '{"code": "OutOfMemory", "message": "' + "x" * 5000 + '"}',
    ],
    ids=lambda text: text[:60],
)
async def test_a_record_that_nobody_can_read_ends_no_run(text: str) -> None:
    world = World()
    await world.end()
    world.record()["data"]["failure.json"] = text
    world.lose()
    await world.look()
    assert [j["metadata"]["name"] for j in world.cluster.of("Job")] == ["run-1"]


@pytest.mark.attack("plans")
async def test_a_record_of_another_object_ends_no_run() -> None:
    world = World()
    await world.end()
    record = world.record()
    record["metadata"]["ownerReferences"][0]["uid"] = "another"
    record["data"]["failure.json"] = json.dumps({"code": "OutOfMemory", "message": "planted"})
    world.lose()
    await world.look()
    assert [j["metadata"]["name"] for j in world.cluster.of("Job")] == ["run-1"]
