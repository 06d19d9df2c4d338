"""FineTuneJob, what goes along with every stage: suspension, deadline, clean-up, progress."""

from __future__ import annotations

import pytest

from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.core.outcome import Outcome

pytestmark = pytest.mark.pure


def test_suspend_and_resume(life, conditions, at):
    life.tick()
    life.pods(life.world.pod())
    life.tick(5)
    life.job["spec"]["suspend"] = True
    life.job["metadata"]["generation"] = 2
    outcome = life.tick(10)
    assert outcome.apply[0]["spec"] == {"suspend": True}
    assert outcome.apply[0]["metadata"]["uid"] == "uid-of-run-1"
    assert conditions(life.status)["Suspended"] == "True/SuspendedByUser"
    assert conditions(life.status)["Reconciling"] == "False/SuspendedByUser"
    assert life.status["phase"] == "Suspended"
    assert life.status["attempts"][0]["outcome"] == "Suspended"
    assert [e.reason for e in outcome.events] == ["Suspended"]
    life.children[-1].body["spec"]["suspend"] = True
    life.pods()
    outcome = life.tick(20)
    assert (outcome.create, outcome.apply, outcome.delete, outcome.events) == ((), (), (), ())
    assert life.status["attempts"][0]["idleSince"] == at(20)
    assert life.tick(21) == Outcome()
    life.job["spec"]["suspend"] = False
    outcome = life.tick(30)
    assert outcome.apply[0]["spec"] == {"suspend": False}
    assert [e.reason for e in outcome.events] == ["Resumed"]
    assert life.status["attempts"][0]["outcome"] == "Running"


def test_suspended_from_the_start_nothing_is_asked_for(new_life, conditions):
    life = new_life(suspend=True)
    assert life.tick().create == ()
    assert conditions(life.status)["Suspended"] == "True/SuspendedByUser"
    assert life.status["phase"] == "Suspended"
    life.job["spec"]["suspend"] = False
    assert life.tick(10).create


def test_pods_that_fail_because_of_suspend_cost_nothing(world, new_life):
    life = new_life(restarts={"maxRestarts": 0, "maxPreemptions": 0})
    life.tick()
    life.job["spec"]["suspend"] = True
    life.ends("Failed", world.dead(75, outcome=world.failure("Interrupted")))
    assert life.tick(61).create == ()
    assert life.status["attempts"][0]["outcome"] == "Suspended"
    life.job["spec"]["suspend"] = False
    assert world.component("Job", life.tick(100).create) == ["run-2"]


def test_the_deadline_counts_from_the_first_attempt(world, new_life, conditions):
    life = new_life(deadline="10m")
    life.tick()
    life.pods(world.pod())
    assert life.tick(100).check_again_in == 500
    life.pods()
    outcome = life.tick(600)
    assert conditions(life.status)["Failed"] == "True/DeadlineExceeded"
    assert [b["metadata"]["name"] for b in outcome.delete] == ["run-1"]
    assert life.tick(700) == Outcome()


def test_at_the_deadline_the_pods_save_and_report_their_last_step(world, new_life, conditions):
    life = new_life(deadline="10m")
    life.tick()
    life.pods(world.pod())
    life.report = report(world, 40, 590)
    life.tick(590)
    outcome = life.tick(600)
    assert [body["spec"] for body in outcome.apply] == [{"suspend": True}]
    assert (outcome.delete, outcome.check_again_in) == ((), 2)
    assert conditions(life.status)["Running"] == "True/Stopping"
    assert life.status["phase"] == "Running"
    life.children[-1].body["spec"]["suspend"] = True
    life.pods(stopping(world, 630))
    life.report = report(world, 41, 603)
    assert life.tick(604).apply == ()
    assert (life.status["progress"]["step"], life.status["attempts"][0]["endStep"]) == (41, 41)
    life.pods()
    outcome = life.tick(610)
    assert conditions(life.status)["Failed"] == "True/DeadlineExceeded"
    assert [b["metadata"]["name"] for b in outcome.delete] == ["run-1"]
    (attempt,) = life.status["attempts"]
    assert (attempt["outcome"], attempt["reason"], attempt["endStep"]) == ("Failed", "DeadlineExceeded", 41)


@pytest.mark.parametrize("code", ["Interrupted", "Disrupted", "RankFailed"])
def test_a_job_that_fails_because_of_the_deadline_was_not_disrupted(world, new_life, conditions, code):
    life = new_life(deadline="10m", restarts={"maxRestarts": 0, "maxPreemptions": 0})
    life.tick()
    life.pods(world.pod())
    life.tick(600)
    life.ends("Failed", world.dead(75, outcome=world.failure(code, "stopped", step=17)), seconds=605)
    assert life.tick(606).create[0]["kind"] == "ConfigMap", "the record of the end"
    assert conditions(life.status)["Failed"] == "True/DeadlineExceeded"
    assert (life.status["attempts"][0]["outcome"], life.status["attempts"][0]["reason"]) == (
        "Failed",
        "DeadlineExceeded",
    )


def test_a_pod_on_a_lost_node_does_not_put_the_end_off(world, new_life, conditions):
    life = new_life(deadline="10m")
    life.tick()
    life.pods(world.pod())
    life.tick(600)
    life.pods(stopping(world, 630))
    assert life.tick(690).delete == ()
    assert life.tick(691).delete
    assert conditions(life.status)["Failed"] == "True/DeadlineExceeded"


GPUS = {"resources": {"nodes": 2, "gpusPerNode": 4}}


def holding(world, since):
    """Pods of both nodes that have held their GPUs since this second."""
    at = world.time(since).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"containerStatuses": [{"name": "trainer", "state": {"running": {"startedAt": at}}}]}
    pods = [world.pod(rank=rank, **state) for rank in (0, 1)]
    for pod in pods:
        pod["status"]["conditions"][0]["lastTransitionTime"] = at
    return pods


@pytest.mark.parametrize("budget", [{"gpuHours": "1"}, {"money": 5, "gpuHourPrice": "5", "gpuHours": 9}])
def test_once_the_budget_is_used_the_pods_save_and_the_run_fails_with_its_own_code(world, new_life, conditions, budget):
    """One hour of 8 GPUs is 450 s; the wait for a node costs nothing."""
    life = new_life(budget=budget, **GPUS)
    life.tick()
    life.pods(world.unscheduled())
    life.tick(9_000)
    life.pods(*holding(world, 10_000))
    assert life.tick(10_449).check_again_in == 1
    outcome = life.tick(10_450)
    assert [body["spec"] for body in outcome.apply] == [{"suspend": True}]
    assert conditions(life.status)["Running"] == "True/Stopping"
    life.children[-1].body["spec"]["suspend"] = True
    assert life.tick(10_454).apply == ()
    life.pods()
    outcome = life.tick(10_460)
    assert conditions(life.status)["Failed"] == "True/BudgetExceeded"
    assert "and spec.budget allows 1." in life.status["failure"]["message"]
    assert [b["metadata"]["name"] for b in outcome.delete] == ["run-1"]
    assert life.tick(10_700) == Outcome()


def test_a_suspended_run_uses_nothing_of_its_budget_and_has_the_rest_of_it_later(world, new_life, conditions):
    life = new_life(budget={"gpuHours": "1"}, **GPUS)
    life.tick()
    life.pods(*holding(world, 0))
    life.tick(100)
    life.job["spec"]["suspend"] = True
    life.tick(200)
    life.children[-1].body["spec"]["suspend"] = True
    life.pods()
    for seconds in (210, 10_000, 90_000):
        life.tick(seconds)
        assert conditions(life.status)["Failed"] == "False/NotFinished"
    life.job["spec"]["suspend"] = False
    life.tick(90_010)
    life.children[-1].body["spec"]["suspend"] = False
    life.pods(*holding(world, 90_020))
    life.tick(90_100)
    assert conditions(life.status)["Running"] == "True/Running"
    life.tick(90_600)
    assert conditions(life.status)["Running"] == "True/Stopping"


def report(world, step, seconds):
    from hone_api.kinds.finetunejob_status import JobProgress

    progress = JobProgress(step=step, total_steps=100, percent=step, summary=f"{step}/100 {step}%")
    return Latest(attempt=1, progress=progress, received=world.time(seconds), start_step=0)


def stopping(world, until):
    pod = world.pod()
    pod["metadata"]["deletionTimestamp"] = world.time(until).strftime("%Y-%m-%dT%H:%M:%SZ")
    return pod


def test_a_run_that_succeeded_beats_the_deadline(world, new_life, conditions):
    life = new_life(deadline="10m")
    life.tick()
    life.ends("Complete", world.dead(0, outcome=world.result()), seconds=599)
    life.tick(700)
    assert conditions(life.status)["Succeeded"] == "True/Completed"


def test_cleanup_removes_the_children_and_makes_none(world, new_life):
    life = new_life(cleanup={"podsAfter": "1h"})
    life.tick()
    life.ends("Complete", world.dead(0, outcome=world.result()), seconds=60)
    life.tick(61)
    assert life.tick(100).check_again_in == 3560
    outcome = life.tick(3661)
    assert [b["metadata"]["name"] for b in outcome.delete] == ["run-1"]
    assert outcome.create == ()
    assert life.tick(4000) == Outcome()


def test_an_edit_after_the_end_only_moves_the_generation(life):
    life.tick()
    life.ends("Complete", life.world.dead(0, outcome=life.world.result()))
    life.tick(61)
    before = dict(life.status)
    life.job["metadata"]["generation"] = 2
    life.tick(100)
    assert life.status["observedGeneration"] == 2
    assert {c["observedGeneration"] for c in life.status["conditions"]} == {2}
    assert life.status["phase"] == before["phase"]
    assert [c["lastTransitionTime"] for c in life.status["conditions"]] == [
        c["lastTransitionTime"] for c in before["conditions"]
    ]


def test_progress_of_the_current_attempt_reaches_the_status(life, world):
    from hone_api.kinds.finetunejob_status import JobProgress

    life.tick()
    life.pods(world.pod())
    progress = JobProgress(step=4, total_steps=10, percent=40, loss="1.5", summary="4/10 40%")
    life.report = Latest(attempt=1, progress=progress, received=world.time(10))
    life.tick(10)
    assert life.status["progress"]["summary"] == "4/10 40%"
    assert life.status["metrics"] == [{"name": "loss", "curve": "4:1.5"}]
    newer = progress.model_copy(update={"last_updated_time": "2026-01-02T03:09:00Z"})
    life.report = Latest(attempt=1, progress=newer, received=world.time(20))
    assert life.tick(20) == Outcome()
    life.report = Latest(attempt=2, progress=JobProgress(step=1), received=world.time(30))
    assert life.tick(30) == Outcome()


def test_the_mlflow_run_is_known_while_the_run_trains_and_after_it_failed(new_life, world):
    from hone_api.kinds.finetunejob_status import JobProgress

    life = new_life(tracking=[{"type": "MLflow", "uri": "https://mlflow.example.org", "experiment": "faq"}])
    life.tick()
    life.pods(world.pod())
    life.report = Latest(attempt=1, progress=JobProgress(step=4), received=world.time(10), tracking_run="0123abcd")
    life.tick(10)
    run = {"uri": "https://mlflow.example.org", "experiment": "faq", "runId": "0123abcd"}
    assert life.status["tracking"] == run
    life.report = None
    life.ends("Failed", world.dead(78, outcome=world.failure("InvalidConfiguration")))
    life.tick(60)
    assert life.status["phase"] == "Failed"
    assert life.status["tracking"] == run


def test_a_job_being_deleted_is_left_alone(life):
    life.job["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert life.tick() == Outcome()
