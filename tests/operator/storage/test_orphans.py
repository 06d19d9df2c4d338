"""A training Job that its FineTuneJob left behind, from before the label hone.dev/run: the sweep spares its run."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from support.lives.world import RUN, MemoryWorld

from hone_api.plan import SweepPlan
from hone_operator.queueing.routing import Key, contents_of

pytestmark = pytest.mark.pure


class OrphanWorld(MemoryWorld):
    """A namespace with a run whose first attempt has a Job."""

    def __init__(self, isolated: bool = True):
        super().__init__(store__isolate_runs=isolated, store__keep_unused_seconds=60)
        self.claims("models", "hone-store")
        self.rows()
        self.add("FineTuneJob", "run", RUN)

    async def leave(self) -> Any:
        """Delete the FineTuneJob, with --cascade=orphan; the Job is of an operator before the label."""
        await self.process(Key("FineTuneJob", "team", "run"))
        await self.process(contents_of("team"))
        (job,) = (j for j in self.cluster.of("Job") if j["metadata"]["name"] == "run-1")
        body = self.cluster.objects["FineTuneJob", "team", "run"]
        self.cluster.remove(body, orphans=True)
        for left in [*self.cluster.of("Job"), *self.cluster.of("ConfigMap")]:
            left["metadata"].get("labels", {}).pop("hone.dev/run", None)
            owners = left["metadata"].get("ownerReferences", [])
            left["metadata"]["ownerReferences"] = [o for o in owners if o["kind"] != "FineTuneJob"]
            self.cluster.touch(left, "orphaned")
        return job, body["metadata"]["uid"]

    async def swept(self) -> SweepPlan:
        """The plan of the sweep that comes when nothing was written for long."""
        self.now += timedelta(days=2)
        await self.process(contents_of("team"))
        (job,) = self.jobs("sweep")
        return self.sweep_plan(job)


@pytest.mark.parametrize("isolated", [True, False])
async def test_its_run_is_found_by_what_it_mounts_or_by_its_plan(isolated: bool) -> None:
    world = OrphanWorld(isolated)
    _, uid = await world.leave()
    assert (await world.swept()).jobs == [uid]


async def test_a_run_that_stays_is_looked_at_again_later() -> None:
    """One sweep followed the other for as long as its pods trained."""
    world = OrphanWorld()
    _, uid = await world.leave()
    await world.swept()
    for sweeps in (1, 0):  # the first one after the run's time is over, and nothing at once after that
        for job in world.jobs("sweep"):
            world.end_job(job, "Complete")
        world.now += timedelta(seconds=90 if sweeps else 30)
        await world.process(contents_of("team"))
        assert len(world.jobs("sweep")) == sweeps
    assert world.cluster.objects["ConfigMap", "team", "hone-contents"]["data"][f"run.{uid}"]


async def test_no_run_is_removed_while_nobody_knows_which_one_it_writes() -> None:
    world = OrphanWorld(isolated=False)
    job, _ = await world.leave()
    _, plan = world.plan(job["spec"]["template"]["spec"])
    assert plan
    plan["data"]["plan.json"] = json.dumps({"workPath": "/elsewhere"})
    assert (await world.swept()).jobs is None


async def test_the_run_of_one_that_has_ended_goes() -> None:
    world = OrphanWorld()
    job, _ = await world.leave()
    world.end_job(job, "Complete")
    assert (await world.swept()).jobs == []
