"""After a loss that diverged: attempts with a lower learning rate where the user asked for them, up to a bound."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hone_api.blocks.placement import MAX_RATE_HALVINGS

pytestmark = pytest.mark.pure
LOWER = {"onDivergence": "HalveLearningRate", "maxRestarts": 0}


def diverges(life: Any, seconds: float) -> Any:
    """The attempt runs, and its loss is not finite."""
    life.pods(life.world.pod())
    life.tick(seconds)
    outcome = life.world.failure("Diverged", "the loss is nan at step 6")
    life.ends("Failed", life.world.dead(70, outcome=outcome), seconds=seconds + 1)
    return life.tick(seconds + 2)


def halvings(outcome: Any) -> int | None:
    """What the plan of the attempt that starts now has."""
    [text] = [b["data"]["plan.json"] for b in outcome.create if b["kind"] == "ConfigMap"]
    number: int | None = json.loads(text).get("learningRateHalvings")
    return number


def test_by_default_the_run_fails(life: Any) -> None:
    assert halvings(life.tick()) is None
    diverges(life, 10)
    assert (life.status["phase"], life.status["failure"]["code"]) == ("Failed", "Diverged")


def test_the_next_attempt_has_half_the_rate_and_is_not_a_restart(new_life: Any) -> None:
    life = new_life(restarts=LOWER)
    assert halvings(life.tick()) == 0
    outcome = diverges(life, 10)
    assert halvings(outcome) == 1
    [event] = [e for e in outcome.events if e.reason == "Restarting"]
    assert "continues from the last checkpoint with 1/2 of the learning rate" in event.message
    first, second = life.status["attempts"]
    assert (first["outcome"], first["reason"], second["learningRateHalvings"]) == ("Failed", "Diverged", 1)


def test_later_attempts_keep_the_lower_rate(new_life: Any) -> None:
    life = new_life(restarts={**LOWER, "maxRestarts": 1})
    life.tick()
    diverges(life, 10)
    life.pods(life.world.pod())
    life.ends("Failed", life.world.dead(1), seconds=20)
    life.tick(21)
    assert halvings(life.tick(60)) == 1
    assert [a.get("learningRateHalvings") for a in life.status["attempts"]] == [None, 1, 1]


def test_it_is_halved_a_few_times_at_most(new_life: Any) -> None:
    life = new_life(restarts=LOWER)
    life.tick()
    for number in range(MAX_RATE_HALVINGS):
        assert halvings(diverges(life, 10 + 10 * number)) == number + 1
    diverges(life, 100)
    assert life.status["failure"]["code"] == "Diverged"


def test_an_operator_that_ended_before_the_status_was_written_knows_the_rate(new_life: Any) -> None:
    life = new_life(restarts=LOWER)
    life.tick()
    before = {**life.status, "attempts": [dict(a) for a in life.status["attempts"]]}
    diverges(life, 10)
    life.job["status"] = before
    life.tick(13)
    assert [a.get("learningRateHalvings") for a in life.status["attempts"]] == [None, 1]
