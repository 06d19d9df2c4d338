"""After a training step that ran out of memory: attempts with a smaller micro batch, up to a bound."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hone_operator.reconcile.run.adjustments import MAX_HALVINGS

pytestmark = pytest.mark.pure


def spent(life: Any, rows: int | None, seconds: float) -> Any:
    """The attempt runs, and runs out of memory with this many rows in a forward pass."""
    life.pods(life.world.pod())
    life.tick(seconds)
    more = {"microBatchSize": rows} if rows else {}
    outcome = life.world.failure("GpuOutOfMemory", "step 5 with some rows", **more)
    life.ends("Failed", life.world.dead(1, outcome=outcome), seconds=seconds + 1)
    return life.tick(seconds + 2)


def plan(outcome: Any) -> dict[str, Any]:
    [text] = [b["data"]["plan.json"] for b in outcome.create if b["kind"] == "ConfigMap"]
    content: dict[str, Any] = json.loads(text)
    return content


def test_the_next_attempt_has_half_as_many_rows_in_a_pass(life: Any) -> None:
    assert "microBatchLimit" not in plan(life.tick())
    outcome = spent(life, 8, 10)
    assert plan(outcome)["microBatchLimit"] == 4
    [event] = [e for e in outcome.events if e.reason == "Restarting"]
    assert "The next attempt has at most 4 rows in a forward pass, and the same batch" in event.message
    first, second = life.status["attempts"]
    assert (first["outcome"], first["reason"], first["microBatchSize"]) == ("Failed", "GpuOutOfMemory", 8)
    assert second["microBatchLimit"] == 4
    assert plan(spent(life, 4, 20))["microBatchLimit"] == 2


def test_it_does_not_count_as_a_restart(new_life: Any) -> None:
    life = new_life(restarts={"maxRestarts": 0})
    life.tick()
    spent(life, 8, 10)
    assert len(life.status["attempts"]) == 2
    life.pods(life.world.pod())
    life.ends("Failed", life.world.dead(1), seconds=30)
    life.tick(31)
    assert life.status["failure"]["code"] == "TrainerError"


def test_an_operator_that_ended_before_the_status_was_written_knows_the_limit(life: Any) -> None:
    life.tick()
    before = {**life.status, "attempts": [dict(a) for a in life.status["attempts"]]}
    spent(life, 8, 10)
    life.job["status"] = before
    life.tick(13)
    assert [a.get("microBatchLimit") for a in life.status["attempts"]] == [None, 4]


@pytest.mark.parametrize(
    ("rows", "spec"), [(None, {}), (8, {"restarts": {"onOutOfMemory": "Fail"}})], ids=["one row", "not wanted"]
)
def test_the_run_fails_where_nothing_can_be_made_smaller(new_life: Any, rows: int | None, spec: Any) -> None:
    life = new_life(**spec)
    life.tick()
    spent(life, rows, 10)
    assert life.status["phase"] == "Failed"
    assert life.status["failure"]["code"] == "GpuOutOfMemory"


def test_it_is_halved_a_few_times_at_most(life: Any) -> None:
    life.tick()
    for number in range(MAX_HALVINGS):
        spent(life, 4096 >> number, 10 + 10 * number)
        assert life.status["phase"] != "Failed"
    spent(life, 4096 >> MAX_HALVINGS, 100)
    assert life.status["failure"]["code"] == "GpuOutOfMemory"


def test_a_pod_that_the_kernel_killed_is_not_retried(life: Any) -> None:
    """Nobody knows what took the memory: with GPUs, rows are not in it."""
    life.tick()
    life.pods(life.world.pod())
    life.ends("Failed", life.world.dead(137, reason="OOMKilled"), seconds=10)
    life.tick(11)
    assert life.status["failure"]["code"] == "OutOfMemory"
