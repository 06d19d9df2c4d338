"""A job that waits for other jobs of its namespace, and one that gives its place away."""

from __future__ import annotations

from typing import Any

import pytest

from hone_operator.reconcile.core.line import Line, place

pytestmark = pytest.mark.pure
FULL, FREE = Line(most=2, active=2, ahead=1), Line(most=2, active=1, ahead=0)


def test_a_job_waits_and_then_starts(life: Any, conditions: Any, at: Any) -> None:
    outcome = life.tick(line=FULL)
    assert outcome.create == ()
    assert life.status["phase"] == "Queued"
    assert conditions(life.status)["Admitted"] == conditions(life.status)["Ready"] == "False/Queued"
    assert life.status["queue"] == {
        "reason": "MaxActiveJobs",
        "position": 2,
        "message": "2 of at most 2 jobs of this namespace train (tenants.maxActiveJobs of the chart): this one is "
        "number 2 of those that wait, oldest first.",
        "since": at(0),
    }
    assert outcome.check_again_in == 30
    assert life.tick(30, line=FULL).status is None
    assert [b["kind"] for b in life.tick(60, line=FREE).create] == ["ConfigMap", "Job"]
    assert "queue" not in life.status


def test_a_suspended_job_waits_for_a_place_before_it_goes_on(life: Any) -> None:
    life.tick()
    life.pods(life.world.pod())
    life.tick(5)
    life.job["spec"]["suspend"] = True
    assert [b["spec"] for b in life.tick(10).apply] == [{"suspend": True}]
    life.children[-1].body["spec"]["suspend"] = True
    life.job["spec"]["suspend"] = False
    assert life.tick(20, line=FULL).apply == ()
    assert life.status["phase"] == "Queued"
    assert [b["spec"] for b in life.tick(50, line=FREE).apply] == [{"suspend": False}]


def job(name: str, born: int, **status: Any) -> dict[str, Any]:
    meta = {"name": name, "uid": name, "creationTimestamp": f"2026-01-02T03:04:0{born}Z"}
    return {"metadata": meta, "spec": {}, "status": status}


def waiting(name: str, born: int) -> dict[str, Any]:
    admitted = {"type": "Admitted", "status": "False", "reason": "Queued"}
    return job(name, born, queue={"reason": "MaxActiveJobs"}, conditions=[admitted])


def attempt(of: str, suspend: bool = False, ended: str = "", **labels: str) -> dict[str, Any]:
    labels = {"hone.dev/component": "training", "hone.dev/run": of, **labels}
    conditions = [{"type": ended, "status": "True"}] if ended else []
    return {"metadata": {"labels": labels}, "spec": {"suspend": suspend}, "status": {"conditions": conditions}}


RUNNING = {"type": "Running", "status": "True"}
"""Of a job whose Job lacks the label, so that the operator does not see it: anybody with `edit` can take it away."""
ENDED = {"number": 1, "jobName": "x-1", "endTime": "2026-01-02T03:05:00Z"}


@pytest.mark.parametrize(
    ("siblings", "children", "active", "ahead"),
    [
        ([], [], 0, 0),
        ([job("b", 2)], [attempt("b")], 1, 0),
        ([job("b", 2)], [attempt("b", suspend=True)], 0, 0),
        ([job("b", 2)], [attempt("b", ended="Complete")], 0, 0),
        ([job("b", 2)], [attempt("b", **{"kueue.x-k8s.io/queue-name": "gpus"})], 0, 0),
        ([job("b", 2)], [attempt("b", **{"hone.dev/component": "fetch"})], 0, 0),
        ([job("b", 2, attempts=[{"number": 1}], conditions=[RUNNING])], [], 1, 0),
        ([job("b", 2, attempts=[{"number": 1}])], [], 0, 0),
        ([job("b", 2, attempts=[{**ENDED, "outcome": "Failed"}])], [], 1, 0),
        ([job("b", 2, attempts=[{**ENDED, "outcome": "Suspended"}])], [], 0, 0),
        ([waiting("b", 2), waiting("d", 4), job("a", 1)], [], 0, 1),
    ],
)
def test_who_has_a_place_and_who_is_ahead(siblings: Any, children: Any, active: int, ahead: int) -> None:
    assert place(job("c", 3), 2, siblings, children) == Line(2, active, ahead)


@pytest.mark.parametrize("reason", ["Waiting", "NotAccepted", "NotAllowed", "Queued"])
def test_a_failed_job_that_cannot_start_again_takes_no_place(reason: str) -> None:
    """Its Dataset is gone, or the limits were tightened: others would wait for it for ever. It joins the line later."""
    admitted = {"type": "Admitted", "status": "False", "reason": reason}
    held_back = job("a", 1, attempts=[{**ENDED, "outcome": "Failed"}], conditions=[admitted])
    assert place(job("c", 3), 1, [held_back], []) == Line(most=1, active=0, ahead=0)
    assert place(held_back, 1, [job("c", 3)], [attempt("c")]) == Line(most=1, active=1, ahead=0)


def test_a_job_that_trains_or_starts_again_needs_no_place() -> None:
    again = job("c", 3, attempts=[{**ENDED, "outcome": "Failed"}])
    assert place(again, 2, [again], []) is None
    assert place(job("c", 3), 2, [], [attempt("c")]) is None
    assert place(job("c", 3), 0, [], []) is None


def test_a_job_whose_next_attempt_has_fewer_nodes_keeps_its_place() -> None:
    """Also while the pods of the last one stop, when its Job is gone already."""
    record = {"number": 1, "jobName": "a-1", "startTime": "2026-01-02T03:04:05Z", "outcome": "Resized"}
    stops, next_one = job("a", 1, attempts=[record]), waiting("b", 2)
    assert place(next_one, 1, [stops, next_one], []) == Line(most=1, active=1, ahead=0)
