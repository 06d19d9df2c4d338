"""The clocks of the cluster jump while a job lives: the same end, no time is negative, nothing is made twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support.lives.world import World

from hone_operator.reconcile.core.conditions import is_true

pytestmark = pytest.mark.pure
ROUNDS = 12
BUSY = 6
"""Rounds from the first to the last in which the undisturbed life has work to do."""


def negative(value: Any, path: str = "status") -> list[str]:
    """Every number below 0 in a status."""
    if isinstance(value, dict):
        return [n for key, each in value.items() for n in negative(each, f"{path}.{key}")]
    if isinstance(value, list):
        return [n for i, each in enumerate(value) for n in negative(each, f"{path}[{i}]")]
    return [path] if isinstance(value, int | float) and value < 0 else []


def ends(world: World) -> dict[str, Any]:
    """What must not depend on the clock."""
    status = world.job["status"]
    return {
        "attempts": [(a["number"], a["outcome"]) for a in status["attempts"]],
        "phase": status["phase"],
        "jobs": sorted(j["metadata"]["labels"]["hone.dev/component"] for j in world.cluster.of("Job")),
        "verified": [is_true(v, "Ready") for v in world.cluster.of("ModelVersion")],
    }


@pytest.mark.faults("O21")
@pytest.mark.parametrize("minutes", [-60, -10, 10])
@pytest.mark.parametrize("when", range(BUSY))
async def test_a_clock_that_jumps_changes_nothing(minutes: int, when: int) -> None:
    undisturbed, world = World.new(), World.new()
    await undisturbed.live(ROUNDS)
    await world.live(when)
    world.now += timedelta(minutes=minutes)
    await world.live(ROUNDS - when)
    assert world.errors == []
    assert ends(world) == ends(undisturbed)
    assert ends(world)["verified"] == [True]
    for body in (world.job, *world.cluster.of("Dataset"), *world.cluster.of("ModelVersion")):
        assert negative(body["status"]) == []
    assert len(world.cluster.writes) <= len(undisturbed.cluster.writes) * 1.2
