"""A Dataset that several pods materialize: one Job, whose first pod finishes the work."""

from __future__ import annotations

from typing import Any

import pytest
from support.cluster.platforms import changed
from support.lives.dataset_life import RESULT, Life, plan_of

pytestmark = pytest.mark.pure
THREE = {"resources": {"pods": 3}}


def test_one_job_has_all_pods(world: Any) -> None:
    outcome = Life(world, **THREE).tick()
    assert [b["kind"] for b in outcome.create] == ["ConfigMap", "Job"]
    job = outcome.create[1]["spec"]
    assert (job["completions"], job["parallelism"], job["completionMode"]) == (3, 3, "Indexed")
    assert plan_of(outcome).pods == 3
    assert plan_of(outcome).downloads_path.startswith("/store/source-files/")


def test_a_lost_pod_is_replaced_and_the_first_ones_end_is_the_jobs(world: Any) -> None:
    shared, alone = (Life(world, **more).tick().create[1]["spec"] for more in (THREE, {}))
    assert shared["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert (shared["backoffLimitPerIndex"], shared["maxFailedIndexes"]) == (3, 0)
    actions = [rule["action"] for rule in shared["podFailurePolicy"]["rules"]]
    assert actions == ["Ignore", "FailJob", "FailJob"]
    assert alone["backoffLimit"] == 0
    assert {rule["action"] for rule in alone["podFailurePolicy"]["rules"]} == {"FailJob"}
    assert not {"successPolicy", "backoffLimitPerIndex", "maxFailedIndexes"} & alone.keys()


def test_the_result_is_the_first_pods_although_others_were_lost(world: Any, conditions: Any) -> None:
    life = Life(world, **THREE)
    life.tick()
    assert life.tick(10).create == ()
    life.ends("Complete", world.dead(137, 1), world.dead(137, 2), world.dead(0, outcome={"result": RESULT}))
    life.tick(61)
    assert conditions(life.status)["Ready"] == "True/Materialized"


@pytest.mark.parametrize("mode", ["ReadWriteOnce", "ReadWriteOncePod"])
def test_a_store_of_one_node_is_refused_at_submission(world: Any, conditions: Any, mode: str) -> None:
    world.platform = changed(world.platform, store__access_mode=mode)
    life = Life(world, **THREE)
    assert life.tick().create == ()
    assert conditions(life.status)["Accepted"] == "False/PlatformUnsuitable"
    assert f"is {mode}, so pods on other nodes cannot use it" in life.status["failure"]["message"]
    assert Life(world).tick().create
