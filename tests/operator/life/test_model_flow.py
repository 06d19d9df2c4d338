"""From a run to a promoted version that the next job starts from: the real controllers and an API server in memory."""

from __future__ import annotations

from typing import Any

import pytest
from support.lives.world import World

pytestmark = pytest.mark.pure


def patched(world: World, kind: str, **spec: Any) -> None:
    """A person changes the spec of the only object of a kind."""
    (body,) = world.cluster.of(kind)
    body["spec"] |= spec
    body["metadata"]["generation"] += 1
    world.cluster.touch(body, "patch")


async def test_an_approved_version_becomes_the_champion_and_the_base_of_the_next_job() -> None:
    world = World.new()
    await world.live(12)
    (model,) = world.cluster.of("Model")
    assert (model["metadata"]["name"], model["spec"], model["status"]["latest"]) == ("tutor", {}, 1)

    patched(world, "Model", promotion={"policy": "Automatic", "aliases": ["champion"]}, retention={"keep": 1})
    await world.live(1)
    (model,) = world.cluster.of("Model")
    assert "aliases" not in model["status"]
    patched(world, "ModelVersion", approval={"state": "Approved", "by": "ada"})
    await world.live(2)
    (model,), (version,) = world.cluster.of("Model"), world.cluster.of("ModelVersion")
    assert [(a["name"], a["modelVersion"], a["approvedBy"]) for a in model["status"]["aliases"]] == [
        ("champion", "tutor-v1", "ada")
    ]
    assert version["status"]["aliases"] == "champion"

    spec = world.job["spec"] | {"model": {"uri": "models://tutor@champion"}}
    world.cluster.add({"kind": "FineTuneJob", "metadata": {"name": "next", "namespace": "team"}, "spec": spec})
    await world.live(3)
    status = world.cluster.objects["FineTuneJob", "team", "next"]["status"]
    assert (status["phase"], status["baseModelVersion"]) == ("Running", "tutor-v1")
    assert status["resolved"]["modelVersion"]["name"] == "tutor-v1"
