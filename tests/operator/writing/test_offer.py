"""Objects that the operator creates for convenience."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from support.lives.world import ROUNDS, World

from hone_operator.queueing.routing import Key
from hone_operator.reconcile.core.conditions import is_true

pytestmark = pytest.mark.pure


async def test_jobs_that_end_at_the_same_time_create_their_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none while they train: whoever applies a job and its Model together finds the name free."""
    world = World.new()
    create, tries = world.cluster.create, list[str]()

    async def slowly(body: Any, brief: bool = False) -> Any:
        if body["kind"] == "Model":
            assert any(is_true(job, "Complete") for job in world.jobs("training"))
            tries.append(body["metadata"]["name"])
            await asyncio.sleep(0.05)
        return await create(body, brief)

    monkeypatch.setattr(world.cluster, "create", slowly)
    jobs = [f"run-{number}" for number in range(5)]
    for name in jobs:
        job = copy.deepcopy(world.job)
        job["metadata"]["name"] = name
        world.cluster.add(job)
    keys = [Key(body["kind"], "team", body["metadata"]["name"]) for body in world.cluster.of("Dataset")]
    keys += [Key("FineTuneJob", "team", name) for name in jobs]
    for _ in range(ROUNDS):
        world.tell()
        await asyncio.gather(*map(world.controllers.process, keys), return_exceptions=True)
        world.play()
    assert not world.errors
    assert tries == [world.job["spec"]["output"]["modelName"]]
    assert [model["metadata"]["name"] for model in world.cluster.of("Model")] == tries
    assert len(world.cluster.of("ModelVersion")) == len(jobs)
