"""Where only so many jobs of a namespace may train at the same time, the others wait, oldest first."""

from __future__ import annotations

import asyncio
import copy
from datetime import timedelta
from typing import Any

import pytest
from support.cluster.memory_cluster import Body
from support.cluster.platforms import changed
from support.lives.world import World

from hone_operator.apiserver.errors import AlreadyExistsError
from hone_operator.queueing.routing import Key
from hone_operator.reconcile.core.conditions import is_true

pytestmark = pytest.mark.pure
AGES = {"fourth": 4, "fifth": 5, "first": 1, "third": 3, "second": 2}
"""1 for the oldest."""


class Team:
    """Five jobs of one namespace; two of them may train at the same time."""

    def __init__(self) -> None:
        self.world = World.new()
        self.started: list[str] = []
        self.waited: set[str] = set()
        self._restart()
        cluster, create = self.world.cluster, self.world.cluster.create

        async def slowly(body: Any, brief: bool = False) -> Body:
            for _ in range(3):
                await asyncio.sleep(0)  # so that decisions about other jobs are made meanwhile
            return await create(body, brief)

        cluster.create = slowly
        job = copy.deepcopy(self.world.job)
        cluster.remove(self.world.job)
        for name in AGES:
            body = copy.deepcopy(job)
            body["metadata"]["name"] = name
            for field in ("uid", "resourceVersion"):
                body["metadata"].pop(field)
            cluster.add(body)["metadata"]["creationTimestamp"] = f"2026-01-02T03:04:0{AGES[name]}Z"

    def _restart(self) -> None:
        """The operator begins with what the API server has."""
        self.world.platform = changed(self.world.platform, tenants__max_active_jobs=2)
        self.world.start_operator()

    def job(self, name: str) -> Body:
        return self.world.cluster.objects["FineTuneJob", "team", name]

    def position(self, name: str) -> int:
        """In the line; 0 for a job that does not wait."""
        status = self.job(name).get("status") or {}
        return (status.get("queue") or {}).get("position", 0) if status.get("phase") == "Queued" else 0

    def active(self) -> list[str]:
        training = self.world.jobs("training")
        live = [j for j in training if not is_true(j, "Complete") and not j["spec"].get("suspend")]
        return [j["metadata"]["name"].rpartition("-")[0] for j in live]

    async def round(self, restart: bool = False) -> None:
        """The operator looks at every object at the same time; then pods and Jobs go a step on."""
        if restart:
            self._restart()
        world = self.world
        for kind in ("Dataset", "FineTuneJob", "ModelVersion"):
            world.cluster.tell(world.cache)
            keys = [Key(kind, "team", body["metadata"]["name"]) for body in world.cluster.of(kind)]
            done = await asyncio.gather(*map(world.controllers.process, keys), return_exceptions=True)
            # Two runs that end at the same time both make the ledger of versions; the queue tries one again.
            assert all(isinstance(each, float | int | None | AlreadyExistsError) for each in done), done
        new = [name for name in self.active() if name not in self.started]
        self.started += new
        assert len(self.active()) <= 2
        left = [AGES[name] for name in AGES if self.position(name)]
        assert all(AGES[name] < min(left, default=9) for name in new if name in self.waited)
        self.waited |= {name for name in AGES if self.position(name)}
        world.cluster.tell(world.cache)
        world.play()
        world.now += timedelta(minutes=1)


@pytest.mark.parametrize("restart", [False, True], ids=["one operator", "an operator that starts again each time"])
async def test_jobs_train_two_at_a_time_oldest_first(restart: bool) -> None:
    team = Team()
    waited: dict[str, set[int]] = {}
    for _ in range(24):
        await team.round(restart)
        for name in AGES:
            status = team.job(name).get("status") or {}
            if queue := status.get("queue"):
                assert (status["phase"], queue["reason"]) == ("Queued", "MaxActiveJobs")
                assert "of at most 2 jobs of this namespace train (tenants.maxActiveJobs" in queue["message"]
                waited.setdefault(name, set()).add(queue["position"])
    assert [team.job(name)["status"]["phase"] for name in AGES] == ["Succeeded"] * 5
    assert sorted(team.waited) == sorted(team.started[2:])
    assert max(max(positions) for positions in waited.values()) == 3
    assert any(1 in positions for positions in waited.values())
    assert not any(team.job(name)["status"].get("queue") for name in AGES)
    assert team.world.errors == []


async def test_a_job_that_has_ended_keeps_its_place_while_its_pods_train() -> None:
    """Its Job is deleted a moment after its status says that it has ended."""
    team = Team()
    while len(team.active()) < 2:
        await team.round()
    ended = team.job(team.active()[0])
    ended["status"]["conditions"] = [{"type": "Finished", "status": "True"}]
    team._restart()
    team.world.cluster.tell(team.world.cache)
    for name in AGES.keys() - set(team.started):
        await team.world.controllers.process(Key("FineTuneJob", "team", name))
    assert len(team.active()) == 2
