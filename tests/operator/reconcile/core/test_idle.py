"""Time in which an attempt has no pods: what it counts to, and that no deadline runs out in a queue."""

from __future__ import annotations

from typing import Any

import pytest
from support.lives.played import MEASURED, PREEMPTED, SHORT, Queued, condition, ended, phases, pod, report

from hone_operator.objects.cache import strip
from hone_operator.reconcile.core.line import Line

pytestmark = pytest.mark.pure
DAY = 86400


def admit(queued: Queued, seconds: float, *pods: Any, past: int = 0) -> None:
    """Kueue admits the Job at this time."""
    when = queued.at(seconds)
    taken = [condition(type_, "True", type_, "", when) for type_ in ("QuotaReserved", "Admitted")]
    gone = condition("Evicted", "False", "QuotaReserved", "", when)
    queued.kueue(*taken, gone, suspend=False, pods=pods, accumulatedPastExecutionTimeSeconds=past)


def evict(queued: Queued, seconds: float, stopped: float | None = None, past: int = 0, **workload: Any) -> None:
    """Kueue takes the quota back at this time, and the pods stop."""
    taken = condition("Evicted", "True", "Preempted", PREEMPTED, queued.at(seconds))
    lost = condition("Admitted", "False", "NoReservation", "", queued.at(seconds if stopped is None else stopped))
    quota = condition("QuotaReserved", "False", "Pending", SHORT, queued.at(seconds))
    counted = {"evictions": [{"reason": "Preempted", "underlyingCause": "", "count": 1}]}
    queued.kueue(
        taken, lost, quota, schedulingStats=counted, accumulatedPastExecutionTimeSeconds=past or None, **workload
    )


def wall(queued: Queued) -> int:
    """Seconds of the first attempt by phase, in all."""
    return sum(phases(queued.life).values())


@pytest.fixture
def trained(new_life: Any, at: Any) -> Queued:
    """Admitted after 20 seconds, it has reported at 100 and is evicted at 110: its pods save until 115."""
    return train(Queued(new_life, at))


def train(queued: Queued) -> Queued:
    queued.life.tick()
    admit(queued, 20, pod(queued.life, queued.at, scheduled=23, started=30))
    queued.life.tick(31)
    report(queued.life, 100, "Training", loading=10.0, firstStep=2.0, training=58.0)
    queued.life.tick(100)
    evict(queued, 110, stopped=115, past=95)
    queued.life.tick(116)
    return queued


def test_the_wait_after_an_eviction_counts_to_the_queue(trained: Queued, at: Any, world: Any) -> None:
    admit(trained, 5500, pod(trained.life, at, scheduled=5503, started=5510), past=95)
    trained.life.tick(5511)
    assert phases(trained.life)["queued"] == 20 + 5500 - 115
    assert (phases(trained.life)["scheduled"], phases(trained.life)["image"]) == (6, 14)
    measured = {"loading": 20.0, "firstStep": 4.0, "training": 140.0, "saving": 5.0, "exporting": 5.0}
    body = ended(trained.life, at, 0, {**world.result(), "phases": measured})
    trained.life.ends("Complete", body, seconds=5620, workload=trained.life.children[-1].workload)
    trained.life.tick(5621)
    assert wall(trained) == 5620
    assert phases(trained.life)["other"] < 30
    assert trained.status["goodput"]["scheduling"] == "0.037"
    assert "idleSince" not in trained.status["attempts"][0]


def test_goodput_goes_on_while_it_waits(trained: Queued) -> None:
    assert trained.status["goodput"]["badputSeconds"]["queue"] == 23
    assert trained.life.tick(700).status is None, "not with every look"
    outcome = trained.life.tick(5000)
    assert trained.status["goodput"]["badputSeconds"]["queue"] == 23 + 4800
    assert outcome.check_again_in == 115 + 5400 - 5000
    assert trained.life.tick(5001).status is None


def test_an_eviction_before_the_container_starts(new_life: Any, at: Any) -> None:
    queued = Queued(new_life, at)
    queued.life.tick()
    admit(queued, 20, pod(queued.life, at, scheduled=23, started=30))
    queued.life.children[-1].pods[0]["status"]["containerStatuses"] = []
    queued.life.tick(24)
    evict(queued, 25, past=5)
    queued.life.tick(26)
    admit(queued, 100, past=5)
    queued.life.tick(101)
    admit(queued, 100, pod(queued.life, at, scheduled=102, started=110), past=5)
    queued.life.tick(111)
    assert phases(queued.life) == {"queued": 95, "scheduled": 5, "image": 8}


def test_several_evictions_that_nobody_saw(trained: Queued, at: Any) -> None:
    """The operator was down: Kueue admitted it from 1115 to 2115, and again at 3115."""
    admit(trained, 3115, pod(trained.life, at, scheduled=3116, started=3117), past=95 + 1000)
    trained.life.tick(3200)
    assert phases(trained.life)["queued"] == 20 + 1000 + 1000


def test_an_eviction_and_the_next_admission_that_nobody_saw(new_life: Any, at: Any) -> None:
    """When the operator comes back, the run trains as before, or has been suspended, or has been evicted again."""
    for back in ("trains", "suspended", "evicted"):
        queued = Queued(new_life, at)
        queued.life.tick()
        admit(queued, 20, pod(queued.life, at, scheduled=23, started=30))
        queued.life.tick(31)
        admit(queued, 2000, pod(queued.life, at, scheduled=2001, started=2002), past=980)
        if back == "evicted":
            evict(queued, 3000, past=1980)
        queued.life.job["spec"]["suspend"] = back == "suspended"
        queued.life.tick(3001)
        assert phases(queued.life)["queued"] == 20 + 1000, back
        assert wall(queued) <= 3001


def test_an_admission_that_nobody_saw(new_life: Any, at: Any) -> None:
    queued = Queued(new_life, at, deadline="1h")
    queued.life.tick()
    evict(queued, 1000, past=900)
    queued.life.tick(5000)
    admit(queued, 6000, pod(queued.life, at, scheduled=6001, started=6002), past=900)
    queued.life.tick(6003)
    assert phases(queued.life) == {"queued": 5100, "scheduled": 1, "image": 1}
    assert queued.status["startTime"] == at(6003)
    assert queued.life.tick(6004).check_again_in == 3600 - 1


def test_no_deadline_runs_out_in_the_queue(new_life: Any, at: Any) -> None:
    queued = train(Queued(new_life, at, deadline="1h"))
    assert queued.status["startTime"] == at(31)
    for seconds in (4000, DAY):
        queued.life.tick(seconds)
        assert queued.status["phase"] == "Requeued"
    admit(queued, DAY, pod(queued.life, at, scheduled=DAY + 1, started=DAY + 2), past=95)
    outcome = queued.life.tick(DAY + 3)
    assert queued.status["phase"] == "Running"
    assert outcome.check_again_in == 3600 - (115 - 20) - 3
    queued.life.tick(DAY + 3600 - 95)
    running = next(c for c in queued.status["conditions"] if c["type"] == "Running")
    assert running["reason"] == "Stopping"


def test_the_wait_of_a_later_attempt_does_not_count_either(new_life: Any, at: Any, world: Any) -> None:
    queued = train(Queued(new_life, at, deadline="1h"))
    queued.life.ends("Failed", world.dead(75, outcome=world.failure("Interrupted")), seconds=120)
    queued.life.tick(121)
    assert [a["number"] for a in queued.status["attempts"]] == [1, 2]
    quota = condition("QuotaReserved", "False", "Pending", SHORT, at(122))
    queued.kueue(quota)
    queued.life.tick(DAY)
    assert queued.status["phase"] == "Queued"
    assert phases(queued.life, 2)["queued"] >= DAY - 121 - 600
    admit(queued, DAY, pod(queued.life, at, scheduled=DAY + 1, started=DAY + 2))
    outcome = queued.life.tick(DAY + 3)
    assert phases(queued.life, 2) == {"queued": DAY - 121, "scheduled": 1, "image": 1}
    assert outcome.check_again_in == 3600 - (121 - 31) - 3


def test_an_attempt_that_is_resized_in_the_queue_has_waited_in_it(new_life: Any, at: Any, world: Any) -> None:
    queued = Queued(new_life, at, resources={"nodes": 2, "minNodes": 1}, deadline="1h")
    train(queued)
    queued.life.tick(10_000)
    assert queued.status["attempts"][0]["outcome"] == "Resized"
    assert phases(queued.life)["queued"] == 20 + 10_000 - 115


def suspend(life: Any, at: int, stopped: int) -> None:
    """The user suspends the run, its pods stop, and then the user takes the suspension back."""
    life.job["spec"]["suspend"] = True
    life.tick(at)
    life.children[-1].body["spec"]["suspend"] = True
    life.pods()
    life.tick(stopped)
    life.job["spec"]["suspend"] = False


def test_a_suspension_is_a_phase_that_goodput_leaves_out(life: Any, at: Any) -> None:
    life.tick()
    life.pods(pod(life, at))
    report(life, 40, "Training", **MEASURED)
    life.tick(40)
    suspend(life, at=45, stopped=50)
    life.tick(DAY)
    life.children[-1].body["spec"]["suspend"] = False
    life.tick(DAY + 1)
    life.pods(pod(life, at, scheduled=DAY + 3, started=DAY + 10))
    life.tick(DAY + 11)
    assert phases(life)["suspended"] == DAY - 50
    assert (phases(life)["scheduled"], phases(life)["image"]) == (6, 14)
    measured = {"loading": 40.0, "firstStep": 4.0, "training": 140.0}
    life.ends("Complete", ended(life, at, 0, {**life.world.result(), "phases": measured}), seconds=DAY + 200)
    life.tick(DAY + 201)
    assert sum(phases(life).values()) == DAY + 200
    assert life.status["goodput"]["seconds"] == 250
    assert life.status["goodput"]["badputSeconds"].get("other", 0) < 50


def test_a_suspension_during_an_eviction(trained: Queued, at: Any) -> None:
    trained.life.job["spec"]["suspend"] = True
    trained.life.tick(1000)
    held = {"annotations": {"hone.dev/held": "true"}}
    evict(trained, 110, stopped=115, past=95, active=False, metadata=held)
    trained.life.tick(1001)
    trained.life.job["spec"]["suspend"] = False
    trained.life.tick(3000)
    evict(trained, 110, stopped=115, past=95)
    trained.life.tick(3001)
    admit(trained, 3500, pod(trained.life, at, scheduled=3501, started=3502), past=95)
    trained.life.tick(3503)
    assert phases(trained.life)["queued"] == 20 + (1000 - 115) + (3500 - 3000)
    assert phases(trained.life)["suspended"] == 2000


def test_the_line_of_the_namespace_does_not_use_the_deadline_up(new_life: Any, at: Any) -> None:
    life = new_life(deadline="1h")
    life.tick()
    life.pods(pod(life, at))
    life.tick(11)
    suspend(life, at=20, stopped=25)
    closed = Line(most=1, active=1, ahead=0)
    life.tick(30, line=closed)
    life.tick(DAY, line=closed)
    assert life.status["phase"] == "Queued"
    life.tick(DAY, line=Line(most=1, active=0, ahead=0))
    life.children[-1].body["spec"]["suspend"] = False
    assert life.tick(DAY + 1).check_again_in == 3600 - 30 - 1
    assert phases(life)["queued"] == DAY - 30


@pytest.mark.parametrize("jump", [-50, -3600, 3600, 30 * DAY])
def test_clocks_that_jump(trained: Queued, at: Any, world: Any, jump: int) -> None:
    for seconds in (2000, 2000 + jump, 2001, 4000):
        trained.life.tick(seconds)
        assert all(value >= 0 for value in phases(trained.life).values())
    admit(trained, 4100, pod(trained.life, at, scheduled=4099, started=4098), past=95)
    trained.life.tick(4101)
    assert phases(trained.life)["queued"] == 20 + 4100 - 115
    trained.life.ends("Failed", world.dead(1), seconds=4200)
    trained.life.tick(4201)
    assert wall(trained) == 4200


def test_a_record_of_an_earlier_version(trained: Queued, at: Any, world: Any) -> None:
    """It has no phases, or no time up to which they count."""
    record = trained.life.status["attempts"][0]
    record.pop("phaseSeconds")
    record.pop("idleSince")
    trained.life.tick(2000)
    admit(trained, 3000, pod(trained.life, at, scheduled=3001, started=3002), past=95)
    trained.life.tick(3003)
    trained.life.ends("Failed", world.dead(1), seconds=3100)
    trained.life.tick(3101)
    assert all(value >= 0 for value in phases(trained.life).values())
    assert wall(trained) == 3100
    assert phases(trained.life)["queued"] <= 3000 - 95


def test_what_kueue_says_about_earlier_admissions_is_kept() -> None:
    meta = {"name": "w", "namespace": "team", "uid": "u"}
    body = {"metadata": meta, "spec": {}, "status": {"accumulatedPastExecutionTimeSeconds": 95, "other": 1}}
    assert strip("Workload", body)["status"] == {"accumulatedPastExecutionTimeSeconds": 95}


def old_attempts(at: Any, number: int, **phases: int) -> list[Any]:
    """Attempts of 100 seconds, one after the other, that the cluster ended."""
    ended = {"jobName": "run-0", "outcome": "Preempted", "reason": "Disrupted", "phaseSeconds": phases}
    return [{"number": n + 1, "startTime": at(100 * n), "endTime": at(100 * n + 100), **ended} for n in range(number)]


def test_waits_of_attempts_that_leave_the_status_still_put_the_deadline_off(new_life: Any, world: Any, at: Any) -> None:
    """130 attempts waited 90 of their 100 seconds each; the first one before the run had started."""
    life = new_life(deadline="1h", restarts={"maxPreemptions": 1000})
    life.job["status"] = {"startTime": at(90), "attempts": old_attempts(at, 130, queued=90, training=10)}
    life.tick(13001)
    assert [r["number"] for r in life.status["attempts"]][::127] == [4, 131]
    assert life.status["earlierAttempts"] == {"number": 3, "failed": 0, "preempted": 3, "queuedSeconds": 180}
    life.pods(world.pod())
    assert life.tick(13002).check_again_in == 90 + 3600 + 129 * 90 - 13002
    assert life.status["earlierAttempts"]["queuedSeconds"] == 180, "each is counted once"


def test_no_forged_wait_puts_the_deadline_off_beyond_its_attempt(new_life: Any, world: Any, at: Any) -> None:
    life = new_life(deadline="1h", restarts={"maxPreemptions": 1000})
    life.job["status"] = {"startTime": at(0), "attempts": old_attempts(at, 2, queued=2**53 - 1)}
    life.tick(300)
    life.pods(world.pod())
    assert life.tick(301).check_again_in == 3600 + 200 - 301
    life.status["earlierAttempts"] = {"number": 1, "failed": 0, "preempted": 0, "queuedSeconds": 2**53 - 1}
    assert life.tick(400).check_again_in == 3600, "as if it had waited all the time"
