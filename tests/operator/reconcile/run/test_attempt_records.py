"""What the records of a run's attempts say: steps from reports and results, and which attempt finished the run."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hone_api.kinds.finetunejob_status import JobProgress
from hone_api.kinds.plan_record import values_of
from hone_operator.progress.numbers import Latest

pytestmark = pytest.mark.pure


def report(life, attempt, step, **fields):
    """The newest report of an attempt."""
    received = datetime(2026, 1, 2, 3, 5, tzinfo=UTC)
    life.report = Latest(attempt, JobProgress(step=step), received, ours=True, **fields)


def steps(life):
    names = ("startStep", "endStep", "lostSteps")
    return [tuple(record.get(name) for name in names) for record in life.status["attempts"]]


def test_steps_of_attempts_from_their_first_report_on(life):
    life.tick()
    life.pods(life.world.pod())
    report(life, 1, 12, start_step=0)
    life.tick(5)
    assert steps(life) == [(0, 12, 0)]
    life.ends("Failed", life.world.dead(137), seconds=60)
    life.tick(61)
    life.tick(600)
    assert steps(life) == [(0, 12, 0), (None, None, None)]  # what the first attempt reported is not the second's
    report(life, 2, 10, start_step=10, lost=2)
    life.pods(life.world.pod())
    life.tick(601)
    assert steps(life) == [(0, 12, 0), (10, 10, 2)]
    life.ends("Failed", life.world.dead(75, outcome=life.world.failure("Interrupted", "stopped", step=17)), seconds=660)
    life.tick(661)
    assert steps(life)[1] == (10, 17, 2)  # its last report did not come through
    assert life.status["attempts"][1]["outcome"] == "Preempted"


def test_an_attempt_whose_end_nobody_saw_has_finished_the_run(life, conditions):
    """Its Job was deleted while the operator was down. The next attempt finds its result in the store."""
    life.tick()
    report(life, 1, 2, start_step=0)
    life.pods(life.world.pod())
    life.tick(5)
    life.children.clear()
    life.tick(30, stopping=0)
    assert [a["outcome"] for a in life.status["attempts"]] == ["Preempted", "Running"]
    result = life.world.result()
    result["result"] |= {"finishedAttempt": 1}
    life.ends("Complete", life.world.dead(0, outcome=result), seconds=60)
    life.tick(61)
    assert conditions(life.status)["Succeeded"].startswith("True/")
    end = result["result"]["steps"]
    assert [(a["outcome"], a.get("reason")) for a in life.status["attempts"]] == [("Succeeded", None)] * 2
    assert steps(life) == [(0, end, 0), (end, end, 0)]


@pytest.mark.parametrize("forged", [2, 7])
def test_a_result_of_an_attempt_that_was_not_there_before_corrects_nothing(life, forged):
    life.tick()
    life.ends("Failed", life.world.dead(137), seconds=60)
    life.tick(61)
    life.tick(600)
    result = life.world.result()
    result["result"] |= {"finishedAttempt": forged}
    life.ends("Complete", life.world.dead(0, outcome=result), seconds=660)
    life.tick(661)
    assert [a["outcome"] for a in life.status["attempts"]] == ["Failed", "Succeeded"]


def test_an_attempt_that_ends_before_its_first_report_has_no_steps(life):
    life.tick()
    report(life, 1, 12, start_step=0)
    life.ends("Failed", life.world.dead(137), seconds=60)
    life.tick(61)
    life.tick(600)
    life.ends("Failed", life.world.dead(137), seconds=660)
    life.tick(661)
    assert steps(life)[:2] == [(0, 12, 0), (None, None, None)]


def test_steps_lost_before_an_attempt_that_ended_while_it_loaded(life):
    life.tick()
    life.pods(life.world.pod())
    report(life, 1, 12, start_step=0)
    life.tick(5)
    for number in (1, 2):
        life.ends("Failed", life.world.dead(137), seconds=600 * number - 540)
        life.tick(600 * number - 539)
        life.tick(600 * number)
    result = life.world.result()
    result["result"]["startStep"] = 4
    life.ends("Complete", life.world.dead(0, outcome=result), seconds=1260)
    life.tick(1261)
    assert steps(life)[:2] == [(0, 12, 0), (None, None, None)]
    assert steps(life)[2][0::2] == (4, 8)


def test_without_reports_the_result_has_the_steps(life):
    life.tick()
    life.ends("Complete", life.world.dead(0, outcome=life.world.result()))
    life.tick(61)
    assert steps(life) == [(0, life.status["progress"]["step"], 0)]


@pytest.mark.parametrize(
    ("reported", "end"), [(5, 12), (12, 12), (16, 16)], ids=["last report lost", "to the end", "stopped early"]
)
def test_the_last_step_is_the_later_of_report_and_result(life, reported, end):
    """The result names the exported step, which early stopping takes from before the last one."""
    life.tick()
    life.pods(life.world.pod())
    report(life, 1, reported, start_step=0)
    life.tick(5)
    result = life.world.result()
    result["result"]["steps"] = 12
    life.ends("Complete", life.world.dead(0, outcome=result))
    life.tick(61)
    assert steps(life) == [(0, end, 0)]


def test_the_mlflow_run_is_in_the_status_and_in_the_lineage(new_life):
    life = new_life(tracking=[{"type": "MLflow", "uri": "https://mlflow.example.org"}])
    life.tick()
    life.pods(life.world.pod())
    life.tick(10)
    result = life.world.result()
    tracked = {"uri": "https://mlflow.example.org", "experiment": "tutor", "runId": "0123456789abcdef"}
    result["result"]["tracking"] = tracked
    life.ends("Complete", life.world.dead(0, outcome=result))
    [made] = life.tick(70).record
    assert life.status["tracking"] == tracked
    assert made["spec"]["lineage"]["tracking"] == tracked
    assert "tracking" not in values_of(made["spec"]["lineage"])
