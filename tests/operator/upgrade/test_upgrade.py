"""Objects of an operator of months ago, under the operator of today: what runs goes on, and what has ended stays."""

from __future__ import annotations

import pytest
from support.lives.world import RECORDED, World

from hone_api.contract.plan_reading import parse_plan
from hone_operator.reconcile.core.conditions import is_true

pytestmark = pytest.mark.pure


@pytest.mark.faults("O20")
@pytest.mark.parametrize("stage", RECORDED["stages"])
async def test_a_run_of_an_earlier_operator_ends_as_if_nobody_had_upgraded(stage: str) -> None:
    world = World(stage)
    begun = {c: world.work(c) for c in ("materialize", "training", "verify")}
    if stage == "suspended":
        await world.live(2)
        world.job["spec"]["suspend"] = False
        world.job["metadata"]["generation"] += 1
        world.cluster.touch(world.job, "spec")
    await world.live()

    assert world.errors == []
    attempts = [(a["number"], a["outcome"]) for a in world.job["status"]["attempts"]]
    assert attempts == [(1, "Succeeded")]
    assert world.work("training") == ["run-1"]
    verified = [w for w in world.cluster.writes if w.startswith("create Job") and "-verify-" in w]
    assert len(verified) + len(begun.pop("verify")) == 1, "once"
    assert world.work("verify") == [], "its Job goes when every file has matched"
    for component, names_ in begun.items():
        assert world.work(component)[: len(names_)] == names_, "nothing was made again"
        assert len(world.work(component)) == 1
    assert is_true(world.job, "Succeeded")
    (version,) = world.cluster.of("ModelVersion")
    assert version["metadata"]["name"] == world.job["status"]["modelVersionName"] == "tutor-v1"
    assert is_true(version, "Ready")
    assert [b["metadata"]["name"] for kind in ("Service", "NetworkPolicy") for b in world.cluster.of(kind)] == []

    written = len(world.cluster.writes)
    await world.live(2)
    assert world.cluster.writes[written:] == [], "nothing is left to do"


@pytest.mark.faults("O20")
def test_plans_of_an_earlier_operator_are_read() -> None:
    """By a trainer of today, where the tag of the image has moved on."""
    configs = [b for b in RECORDED["objects"] if b["kind"] == "ConfigMap" and "plan.json" in b["data"]]
    kinds = {parse_plan(config["data"]["plan.json"]).kind for config in configs}
    assert kinds == {"Materialize", "Fetch", "Training", "Verify"}
