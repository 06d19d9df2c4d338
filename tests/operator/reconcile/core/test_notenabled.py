"""Objects in a namespace that has not opted in."""

from datetime import UTC, datetime

import pytest

from hone_operator.reconcile.core.notenabled import not_enabled

pytestmark = pytest.mark.pure
WORDS = "kubectl label namespace team hone.dev/enabled=true"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def body(kind, generation=1, **status):
    return {"kind": kind, "metadata": {"namespace": "team", "name": "x", "generation": generation}, "status": status}


def ready(status="True", type_="Ready"):
    since = "2025-01-01T00:00:00Z"
    return {"type": type_, "status": status, "reason": "R", "message": "m", "lastTransitionTime": since}


@pytest.mark.parametrize("kind", ["FineTuneJob", "Dataset", "ModelVersion"])
def test_it_waits_and_says_how_to_go_on(kind):
    outcome = not_enabled(body(kind), NOW, WORDS)
    found = {c["type"]: c for c in outcome.status["conditions"]}
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "NamespaceNotEnabled")
    assert found["Ready"]["message"] == WORDS
    assert found["Reconciling"]["status"] == "True"
    assert found["Stalled"]["status"] == "False"
    assert not (outcome.create)
    assert not (outcome.apply)
    assert not (outcome.delete)
    assert not (outcome.events)


def test_a_running_job_keeps_what_its_status_says():
    attempts = [{"number": 1, "jobName": "x-1", "outcome": "Running"}]
    running = body("FineTuneJob", attempts=attempts, phase="Running", conditions=[ready(type_="Running")])
    outcome = not_enabled(running, NOW, WORDS)
    assert outcome.status["attempts"] == attempts
    assert outcome.status["phase"] == "Running"
    assert {c["type"]: c["status"] for c in outcome.status["conditions"]}["Running"] == "True"


@pytest.mark.parametrize(
    "settled",
    [
        body("FineTuneJob", conditions=[ready(type_="Finished")]),
        body("Dataset", observedGeneration=1, conditions=[ready()]),
        body("ModelVersion", observedGeneration=1, conditions=[ready()]),
    ],
    ids=["finished job", "Ready Dataset", "Ready ModelVersion"],
)
def test_what_is_settled_stays_as_it_is(settled):
    assert not_enabled(settled, NOW, WORDS).status is None


def test_an_edited_dataset_waits():
    edited = body("Dataset", generation=2, observedGeneration=1, conditions=[ready()])
    assert not_enabled(edited, NOW, WORDS).status["conditions"][0]["reason"] == "NamespaceNotEnabled"


def test_the_same_again_writes_nothing():
    first = not_enabled(body("Dataset"), NOW, WORDS)
    again = {**body("Dataset"), "status": first.status}
    assert not_enabled(again, NOW, WORDS).status is None
