"""What the time of a run was spent on, over all attempts and between them."""

from __future__ import annotations

from typing import Any

import pytest

from hone_operator.reconcile.run.goodput import goodput, spent

pytestmark = pytest.mark.pure


def attempt(at: Any, start: float, end: float | None = None, outcome: str = "Failed", **fields: Any) -> Any:
    record = {"number": 1, "jobName": "run-1", "startTime": at(start), "outcome": outcome, **fields}
    return {**record, "endTime": at(end)} if end is not None else record


FIRST = {"queued": 50, "scheduled": 10, "image": 20, "loading": 20, "firstStep": 5, "training": 80, "saving": 15}


def test_a_run_that_was_never_disturbed(at: Any) -> None:
    assert goodput([attempt(at, 0, 200, "Succeeded", phases=FIRST)]) == {
        "ratio": "0.400",
        "scheduling": "0.700",
        "runtime": "0.571",
        "seconds": 200,
        "productiveSeconds": 80,
        "badputSeconds": {"queue": 60, "image": 20, "loading": 20, "firstStep": 5, "saving": 15},
    }


def test_lost_steps_and_restarts_are_badput(at: Any) -> None:
    """Of 40 steps in 80 seconds 10 are trained again: 20 seconds."""
    first = attempt(at, 0, 200, phases=FIRST, startStep=0, endStep=40)
    later = {"loading": 30, "encoding": 4, "evaluating": 6, "training": 60, "exporting": 3, "other": 7}
    second = attempt(at, 210, phases=later, startStep=30, lostSteps=10)
    found = goodput([first, second])
    assert found is not None
    assert found["badputSeconds"] == {
        "queue": 60,
        "image": 20,
        "loading": 54,
        "firstStep": 5,
        "evaluation": 6,
        "saving": 15,
        "lostSteps": 20,
        "restart": 10,
        "exporting": 3,
        "other": 7,
    }
    assert (found["productiveSeconds"], found["seconds"]) == (120, 320)
    assert found["productiveSeconds"] + sum(found["badputSeconds"].values()) == found["seconds"]


def test_the_time_of_each_attempt_is_its_own(at: Any) -> None:
    first = attempt(at, 0, 200, phases=FIRST, startStep=0, endStep=40)
    second = attempt(at, 210, phases={"training": 60}, startStep=30, lostSteps=10)
    before, after = spent([first, second])
    assert (before["productive"], before["lostSteps"], before["restart"]) == (60, 20, 0)
    assert {kind: seconds for kind, seconds in after.items() if seconds} == {"productive": 60, "restart": 10}


def lost(*records: Any) -> list[int]:
    return [seconds["lostSteps"] for seconds in spent(records)]


def numbered(at: Any, *records: dict[str, Any]) -> list[Any]:
    """Attempts that trained two seconds a step, one after the other."""
    return [
        attempt(at, 200 * number, 200 * number + 200, **{"number": number, **record})
        for number, record in enumerate(records, 1)
    ]


def test_steps_that_an_attempt_lost_itself_are_badput(at: Any) -> None:
    """Its pods went from step 0 to 100, stopped without a checkpoint, and went from 50 to 100 again: 150 steps."""
    queued = {"startStep": 0, "endStep": 100, "lostSteps": 50, "phaseSeconds": {"training": 300}}
    assert lost(*numbered(at, queued)) == [100]
    later = {"startStep": 90, "endStep": 200, "lostSteps": 10, "phaseSeconds": {"training": 220}}
    assert lost(*numbered(at, queued, later)) == [120, 0]


def test_lost_steps_that_reach_over_several_attempts_count_in_each(at: Any) -> None:
    """The third attempt cannot read the checkpoint of step 40, from which the second one trained a step."""
    first = {"startStep": 0, "endStep": 40, "lostSteps": 0, "phaseSeconds": {"training": 80}}
    second = {"startStep": 40, "endStep": 41, "lostSteps": 0, "phaseSeconds": {"training": 2}}
    third = {"startStep": 10, "endStep": 60, "lostSteps": 31, "phaseSeconds": {"training": 100}}
    assert lost(*numbered(at, first, second, third)) == [60, 2, 0]
    fourth = {"startStep": 5, "endStep": 60, "lostSteps": 55, "phaseSeconds": {"training": 110}}
    assert lost(*numbered(at, first, second, third, fourth)) == [70, 2, 100, 0]


def test_an_attempt_that_ended_while_it_loaded_does_not_hide_lost_steps(at: Any) -> None:
    first = {"startStep": 0, "endStep": 40, "lostSteps": 0, "phaseSeconds": {"training": 80}}
    third = {"startStep": 20, "endStep": 60, "lostSteps": 20, "phaseSeconds": {"training": 80}}
    assert lost(*numbered(at, first, {"phaseSeconds": {"loading": 9}}, third)) == [40, 0, 0]


def test_steps_that_dropped_attempts_lost_are_not_those_of_the_oldest_that_is_left(at: Any) -> None:
    oldest = {"number": 41, "startStep": 10, "endStep": 20, "lostSteps": 30, "phaseSeconds": {"training": 20}}
    assert lost(*numbered(at, oldest)) == [0]


def test_forged_numbers_of_steps_take_no_time_twice(at: Any) -> None:
    numbers = (0, 7, 2**53)
    records = [{"startStep": a, "endStep": b, "lostSteps": c} for a in numbers for b in numbers for c in numbers]
    for record in records:
        for other in records:
            for seconds in spent(
                numbered(at, *({**each, "phaseSeconds": {"training": 100}} for each in (record, other)))
            ):
                assert 0 <= seconds["lostSteps"] <= 100
                assert seconds["productive"] + seconds["lostSteps"] == 100


def test_a_suspension_by_the_user_is_left_out(at: Any) -> None:
    first = attempt(at, 0, 200, "Suspended", phases=FIRST)
    found = goodput([first, attempt(at, 90000, phases={"training": 20})])
    assert found is not None
    assert (found["seconds"], found["badputSeconds"].get("restart")) == (220, None)


def test_nothing_is_said_before_the_first_step(at: Any) -> None:
    assert goodput([]) is None
    assert goodput([attempt(at, 0, phases={"scheduled": 3})]) is None


def test_it_is_in_the_status(life: Any, at: Any) -> None:
    life.tick()
    life.pods(life.world.pod())
    ended = life.world.dead(0, outcome={**life.world.result(), "phases": {"loading": 10, "training": 30}})
    life.ends("Complete", ended)
    life.tick(60)
    assert life.status["goodput"]["productiveSeconds"] == 30
    assert life.status["goodput"]["seconds"] == 60
