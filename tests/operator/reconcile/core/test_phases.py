"""Where the time of each attempt went, also if it failed, was suspended, or nobody reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.cluster.platforms import changed
from support.lives.played import MEASURED, ended, phases, pod, report

from hone_operator.reconcile.core.line import Line

pytestmark = pytest.mark.pure


def held(life: Any) -> int | None:
    seconds: int | None = life.status["attempts"][0].get("heldSecondsBeforeFirstStep")
    return seconds


def test_a_finished_attempt_adds_up_to_its_time(new_life: Any, at: Any) -> None:
    life = new_life(resources={"nodes": 1, "gpusPerNode": 4})
    life.tick()
    life.pods(pod(life, at))
    life.tick(11)
    assert phases(life) == {"scheduled": 3, "image": 7}
    assert held(life) is None
    report(life, 40, "Training", **MEASURED)
    life.tick(40)
    assert phases(life)["loading"] == 20
    assert held(life) == 4 * 25
    outcome = {**life.world.result(), "phases": {**MEASURED, "exporting": 4.0, "ofTheFuture": 3.0}}
    life.ends("Complete", ended(life, at, 0, outcome), seconds=60)
    life.tick(61)
    assert phases(life) == {
        **{"scheduled": 3, "image": 7, "loading": 20, "evaluatingBase": 5, "firstStep": 2, "training": 10},
        **{"saving": 1, "exporting": 4, "other": 8},
    }
    assert list(phases(life))[-1] == "other"
    assert held(life) == 4 * 25


def test_without_gpus_seconds_are_counted_once(new_life: Any, at: Any) -> None:
    """Rank 0 starts 6 s after the first container: it was also held for these."""
    life = new_life(resources={"nodes": 2})
    life.tick()
    life.pods(pod(life, at, started=16), pod(life, at, 1, started=10))
    report(life, 40, "Training", **MEASURED)
    life.tick(40)
    assert held(life) == 6 + 25


def kill(life: Any, at: Any, reported: int, stage: str, **seconds: float) -> None:
    """The only pod reports once, after so many seconds, and is killed at 60."""
    life.tick()
    life.pods(pod(life, at))
    report(life, reported, stage, **seconds)
    life.tick(reported)
    life.ends("Failed", ended(life, at, 137), seconds=60)
    life.tick(61)


def test_a_pod_that_was_killed_has_its_last_stage(life: Any, at: Any) -> None:
    """It runs out of memory while it loads."""
    kill(life, at, 12, "Loading", loading=0.4)
    assert phases(life) == {"scheduled": 3, "image": 7, "loading": 48, "other": 2}
    assert held(life) == 48


def test_one_killed_in_its_first_step_was_not_loading(life: Any, at: Any) -> None:
    kill(life, at, 30, "Training", loading=20.0)
    assert phases(life) == {"scheduled": 3, "image": 7, "loading": 20, "firstStep": 30}


def test_a_suspension_counts_to_nothing_that_the_trainer_did(life: Any, at: Any) -> None:
    life.tick()
    life.pods(pod(life, at))
    report(life, 40, "Training", **MEASURED)
    life.tick(40)
    before = phases(life)
    life.job["spec"]["suspend"] = True
    life.tick(45)
    life.ends("Failed", seconds=1000)
    life.tick(1001)
    assert life.status["attempts"][0]["outcome"] != "Running"
    assert phases(life) == {**before, "other": 1000 - sum(before.values())}


def test_a_restart_of_the_operator_and_fewer_seconds_take_nothing_back(life: Any, at: Any) -> None:
    life.tick()
    life.pods(pod(life, at))
    report(life, 40, "Training", **MEASURED)
    life.tick(40)
    before, held_before = phases(life), held(life)
    life.report = None
    life.pods()
    life.tick(50)
    assert (phases(life), held(life)) == (before, held_before)
    report(life, 55, "Loading", loading=3.0)
    life.tick(55)
    assert (phases(life), held(life)) == (before, held_before)


def test_a_report_of_another_attempt_is_not_this_ones(life: Any, at: Any) -> None:
    life.tick()
    life.pods(pod(life, at))
    report(life, 40, "Training", attempt=2, **MEASURED)
    life.tick(40)
    assert phases(life) == {"scheduled": 3, "image": 7}


def test_a_trainer_that_measures_nothing_has_a_named_rest(life: Any, at: Any) -> None:
    """One of an earlier version, or another image."""
    life.tick()
    life.pods(pod(life, at))
    report(life, 40, "Training")
    life.tick(40)
    life.ends("Failed", ended(life, at, 1), seconds=60)
    life.tick(61)
    assert phases(life) == {"scheduled": 3, "image": 7, "other": 50}
    assert held(life) is None


def test_an_attempt_without_a_node_has_waited(new_life: Any) -> None:
    life = new_life(deadline="5m")
    life.tick()
    life.pods(life.world.unscheduled())
    life.tick(10)
    assert phases(life) == {}
    life.tick(301)
    assert life.status["failure"]["code"] == "DeadlineExceeded"
    assert phases(life) == {"scheduled": 301}


def test_an_image_that_cannot_be_pulled_is_what_was_waited_for(life: Any, at: Any) -> None:
    life.tick()
    waiting = life.world.waiting("ErrImagePull", "no such image")
    waiting["status"]["conditions"][0]["lastTransitionTime"] = at(3)
    life.pods(waiting)
    life.tick(10)
    life.tick(901)
    assert life.status["failure"]["code"] == "ImagePullFailed"
    assert phases(life) == {"scheduled": 3, "image": 898}


def test_records_of_an_earlier_operator_stay_as_they_are(life: Any, at: Any) -> None:
    life.tick()
    life.ends("Failed", life.world.dead(137), seconds=60)
    life.tick(61)
    del life.status["attempts"][0]["phaseSeconds"]
    old = dict(life.status["attempts"][0])
    life.tick(600)
    assert life.status["attempts"][0] == old


def test_the_wait_for_kueue_is_a_phase_of_its_own(new_life: Any, at: Any) -> None:
    life = new_life(scheduling={"queueName": "team"})
    life.world.platform = changed(life.world.platform, kueue__enabled=True)
    life.tick()
    life.children[-1] = replace(life.children[-1], workload=admitted(at(2)), pods=[pod(life, at)])
    life.tick(11)
    assert phases(life) == {"queued": 2, "scheduled": 1, "image": 7}


def admitted(when: str) -> dict[str, Any]:
    conditions = [
        {"type": "Admitted", "status": "True", "reason": "Admitted", "message": "", "lastTransitionTime": when}
    ]
    meta = {"name": "job-run-1", "namespace": "team"}
    return {"metadata": meta, "spec": {"active": True}, "status": {"conditions": conditions}}


def test_the_wait_for_other_jobs_of_the_namespace_is_a_phase(life: Any, at: Any) -> None:
    life.tick(line=Line(most=1, active=1, ahead=0))
    life.tick(100)
    life.children[-1] = life.world.child(life.children[-1].body, pod(life, at, scheduled=103, started=110), created=100)
    life.tick(111)
    assert life.status["attempts"][0]["startTime"] == at(0)
    assert phases(life) == {"queued": 100, "scheduled": 3, "image": 7}
