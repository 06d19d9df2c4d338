"""Objects that the operator creates for convenience."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from support.lives.world import World

from hone_operator.queueing.routing import Key

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("made_before", [False, True])
async def test_jobs_that_miss_their_model_at_the_same_time_create_it_once(
    monkeypatch: pytest.MonkeyPatch, made_before: bool
) -> None:
    world = World.new()
    create, tries = world.cluster.create, list[str]()

    async def slowly(body: Any, brief: bool = False) -> Any:
        if body["kind"] == "Model":
            tries.append(body["metadata"]["name"])
            await asyncio.sleep(0.05)
        return await create(body, brief)

    monkeypatch.setattr(world.cluster, "create", slowly)
    for number in range(5):
        job = copy.deepcopy(world.job)
        job["metadata"]["name"] = f"run-{number}"
        world.cluster.add(job)
    world.cluster.tell(world.cache)
    keys = [Key("FineTuneJob", "team", f"run-{number}") for number in range(5)]
    if made_before:
        await world.controllers.process(Key("FineTuneJob", "team", "run"))
    await asyncio.gather(*map(world.controllers.process, keys))
    assert tries == [world.job["spec"]["output"]["modelName"]]
    assert [model["metadata"]["name"] for model in world.cluster.of("Model")] == tries
    assert all((job.get("status") or {}).get("conditions") for job in world.cluster.of("FineTuneJob")[1:])
