"""A training Job that its FineTuneJob left behind, from before the label hone.dev/run: the sweep spares its run."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.cluster.memory_cluster import Body, MemoryCluster
from support.cluster.platforms import platform_with

from hone_api.plan import SweepPlan
from hone_operator.controllers import Controllers
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key, contents_of

pytestmark = pytest.mark.pure
DIGEST = "sha256:" + "a" * 64
RUN = Key("FineTuneJob", "ns", "run")


class World:
    """A namespace with a run whose first attempt has a Job."""

    def __init__(self, isolated: bool = True):
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.cluster, self.cache = MemoryCluster(lambda: self.now.strftime("%Y-%m-%dT%H:%M:%SZ")), Cache()
        platform = platform_with("trainer", store__isolate_runs=isolated, store__keep_unused_seconds=60)
        self.operator = Controllers(self.cluster, self.cache, platform, now=lambda: self.now)
        for claim in ("models", "hone-store"):
            self._add("PersistentVolumeClaim", claim, {})
        ready = {"type": "Ready", "status": "True", "reason": "x", "message": "", "lastTransitionTime": self.time}
        status = {"observedGeneration": 1, "conditions": [ready], "digest": DIGEST}
        splits = [{"name": "train", "rows": 9}, {"name": "validation", "rows": 9}]
        self._add("Dataset", "rows", {"source": {"uri": "pvc://data/rows.jsonl"}}, {**status, "splits": splits})
        model, output = {"uri": "pvc://models/base"}, {"modelName": "tutor"}
        self._add("FineTuneJob", "run", {"model": model, "datasets": [{"name": "rows"}], "output": output})

    def _add(self, kind: str, name: str, spec: Body, status: Body | None = None) -> None:
        meta = {"name": name, "namespace": "ns"}
        self.cluster.add({"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": spec, "status": status or {}})

    @property
    def time(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    async def process(self, key: Key) -> None:
        self.cluster.tell(self.cache)
        await self.operator.process(key)
        self.cluster.tell(self.cache)

    async def leave(self) -> Any:
        """Delete the FineTuneJob, with --cascade=orphan; the Job is of an operator before the label."""
        await self.process(RUN)
        await self.process(contents_of("ns"))
        (job,) = (j for j in self.cluster.of("Job") if j["metadata"]["name"] == "run-1")
        body = self.cluster.objects["FineTuneJob", "ns", "run"]
        self.cluster.remove(body, orphans=True)
        for left in [*self.cluster.of("Job"), *self.cluster.of("ConfigMap")]:
            left["metadata"].get("labels", {}).pop("hone.dev/run", None)
            owners = left["metadata"].get("ownerReferences", [])
            left["metadata"]["ownerReferences"] = [o for o in owners if o["kind"] != "FineTuneJob"]
            self.cluster.touch(left, "orphaned")
        return job, body["metadata"]["uid"]

    def sweeps(self) -> list[Body]:
        return [j for j in self.cluster.of("Job") if j["metadata"]["labels"]["hone.dev/component"] == "sweep"]

    async def swept(self) -> SweepPlan:
        """The plan of the sweep that comes when nothing was written for long."""
        self.now += timedelta(days=2)
        await self.process(contents_of("ns"))
        (job,) = self.sweeps()
        (name,) = (v["configMap"]["name"] for v in job["spec"]["template"]["spec"]["volumes"] if "configMap" in v)
        return SweepPlan.model_validate_json(self.cluster.objects["ConfigMap", "ns", name]["data"]["plan.json"])


@pytest.mark.parametrize("isolated", [True, False])
async def test_its_run_is_found_by_what_it_mounts_or_by_its_plan(isolated: bool) -> None:
    world = World(isolated)
    _, uid = await world.leave()
    assert (await world.swept()).jobs == [uid]


async def test_a_run_that_stays_is_looked_at_again_later() -> None:
    """One sweep followed the other for as long as its pods trained."""
    world = World()
    _, uid = await world.leave()
    await world.swept()
    for sweeps in (1, 0):  # the first one after the run's time is over, and nothing at once after that
        for job in world.sweeps():
            done = {"type": "Complete", "status": "True", "reason": "", "message": "", "lastTransitionTime": world.time}
            job["status"] = {"conditions": [done]}
            world.cluster.touch(job, "ended")
        world.now += timedelta(seconds=90 if sweeps else 30)
        await world.process(contents_of("ns"))
        assert len(world.sweeps()) == sweeps
    assert world.cluster.objects["ConfigMap", "ns", "hone-contents"]["data"][f"run.{uid}"]


async def test_no_run_is_removed_while_nobody_knows_which_one_it_writes() -> None:
    world = World(isolated=False)
    job, _ = await world.leave()
    (name,) = (v["configMap"]["name"] for v in job["spec"]["template"]["spec"]["volumes"] if "configMap" in v)
    plan = world.cluster.objects["ConfigMap", "ns", name]
    plan["data"]["plan.json"] = json.dumps({"workPath": "/elsewhere"})
    assert (await world.swept()).jobs is None


async def test_the_run_of_one_that_has_ended_goes() -> None:
    world = World()
    job, _ = await world.leave()
    done = {"type": "Complete", "status": "True", "reason": "", "message": "", "lastTransitionTime": world.time}
    job["status"] = {"conditions": [done]}
    world.cluster.touch(job, "ended")
    assert (await world.swept()).jobs == []
