"""evaluation.harness: its data sets are staged before any GPU is asked for, pinned, and go into plan and lineage."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hone_api.kinds.plan_record import values_of

pytestmark = pytest.mark.pure
DIGEST = "sha256:" + "7" * 64
COMMIT = "c" * 40
STAGED = {
    "kind": "Tasks",
    "path": f"evaluation-tasks/{'e' * 64}",
    "digest": DIGEST,
    "version": "0.4.13",
    "dataSets": [f"allenai/ai2_arc@{COMMIT}", f"openai/gsm8k@{COMMIT}"],
}
HARNESS = {"tasks": ["arc_easy", "gsm8k"], "limit": 50, "maxRegression": "5%"}
WORDS = "evaluation.harness: worse than the base model beyond 5.0%: acc on arc_easy by 21.0%."


@pytest.fixture
def measured(new_life):
    """A job whose tasks are not staged yet, and all else is ready."""
    return new_life(evaluation={"harness": HARNESS})


def plan_of(outcome: Any) -> dict[str, Any]:
    return json.loads(next(b for b in outcome.create if b["kind"] == "ConfigMap")["data"]["plan.json"])


def of_component(outcome: Any, component: str) -> list[str]:
    labels = ((b, b["metadata"]["labels"]["hone.dev/component"]) for b in outcome.create if b["kind"] == "Job")
    return [b["metadata"]["name"] for b, found in labels if found == component]


def test_without_a_harness_there_is_no_such_condition(life, conditions):
    assert life.tick().create
    assert "TasksReady" not in conditions(life.status)
    assert "evaluationTasks" not in life.status["resolved"]


def test_tasks_are_staged_before_anything_trains(world, measured, conditions):
    outcome = measured.tick()
    assert len(of_component(outcome, "tasks")) == 1
    assert of_component(outcome, "training") == []
    assert plan_of(outcome)["harness"] == {**HARNESS, "applyChatTemplate": False}
    assert conditions(measured.status)["TasksReady"] == "False/Fetching"
    assert conditions(measured.status)["ModelReady"] == "True/Available"
    assert measured.status["phase"] == "Preparing"
    assert outcome.events == (), "as planned: nothing to tell"
    measured.pods(world.pod())
    assert measured.tick(5).status is None

    measured.ends("Complete", world.dead(0, outcome={"result": STAGED}))
    outcome = measured.tick(70)
    assert of_component(outcome, "training") == ["run-1"]
    assert conditions(measured.status)["TasksReady"] == "True/Available"
    assert f"allenai/ai2_arc@{COMMIT}" in json.dumps(measured.status["conditions"])
    assert plan_of(outcome)["harnessTasks"] == {
        "path": f"/store/evaluation-tasks/{'e' * 64}",
        "digest": DIGEST,
        "version": "0.4.13",
        "dataSets": STAGED["dataSets"],
    }
    assert measured.status["resolved"]["evaluationTasks"] == {
        "uri": f"pvc://hone-store/evaluation-tasks/{'e' * 64}",
        "digest": DIGEST,
        "version": "0.4.13",
        "dataSets": STAGED["dataSets"],
    }


def test_model_and_tasks_are_staged_at_the_same_time(world, new_life, conditions):
    life = new_life(model={"uri": "hf://org/model", "secretName": "token"}, evaluation={"harness": HARNESS})
    outcome = life.tick()
    assert len(of_component(outcome, "fetch")) == len(of_component(outcome, "tasks")) == 1
    plans = [json.loads(b["data"]["plan.json"]) for b in outcome.create if b["kind"] == "ConfigMap"]
    assert [p["secretPath"] for p in plans] == ["/secrets/source"] * 2
    life.ends("Complete", world.dead(0, outcome={"result": STAGED}))
    assert life.tick(70).create == ()
    assert conditions(life.status)["TasksReady"] == "True/Available"
    assert conditions(life.status)["ModelReady"] == "False/Fetching"


def test_they_are_also_staged_for_a_stage_of_a_chain(new_life, conditions):
    life = new_life(model={"modelVersion": "first-v1"}, evaluation={"harness": HARNESS})
    outcome = life.tick()
    assert len(of_component(outcome, "tasks")) == 1
    assert conditions(life.status)["ModelReady"] == "False/ModelVersionNotFound"


@pytest.mark.parametrize("code", ["DatasetSourceNotFound", "GatedModelAccessDenied", "SourceUnreachable"])
def test_what_can_recover_is_retried_with_backoff(world, measured, conditions, code):
    (first,) = of_component(measured.tick(), "tasks")
    measured.ends("Failed", world.dead(78, outcome=world.failure(code, "openai/gsm8k: 403")), seconds=60)
    outcome = measured.tick(61)
    assert outcome.create == ()
    assert outcome.check_again_in == 9
    assert conditions(measured.status)["TasksReady"] == f"False/{code}"
    assert [e.reason for e in outcome.events] == [code]
    outcome = measured.tick(70)
    (second,) = of_component(outcome, "tasks")
    assert second != first
    assert outcome.delete == ()
    assert conditions(measured.status)["TasksReady"] == f"False/{code}", "it stays in view meanwhile"


def test_a_task_that_cannot_be_ends_the_job_before_a_gpu_is_asked_for(world, measured, conditions):
    measured.tick()
    words = "evaluation.harness.tasks: arc_eazy is not a task of lm-eval 0.4.13; near to it: arc_easy"
    measured.ends("Failed", world.dead(78, outcome=world.failure("InvalidConfiguration", words)))
    outcome = measured.tick(70)
    assert outcome.create == ()
    assert conditions(measured.status)["TasksReady"] == "False/InvalidConfiguration"
    assert conditions(measured.status)["Failed"] == "True/InvalidConfiguration"
    assert measured.status["failure"]["message"] == words


def test_nothing_is_staged_while_the_job_is_suspended(new_life, conditions):
    life = new_life(suspend=True, evaluation={"harness": HARNESS})
    assert life.tick().create == ()
    assert conditions(life.status)["TasksReady"] == "False/Suspended"
    life.job["spec"]["suspend"] = False
    assert len(of_component(life.tick(10), "tasks")) == 1


def test_a_refused_job_also_has_the_condition(new_life, conditions):
    life = new_life(evaluation={"harness": HARNESS}, deepspeed={"zeroStage": 3, "offload": "NVMe"})
    assert life.tick().create == ()
    assert conditions(life.status)["TasksReady"] == "False/NotAccepted"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"method": "Reward", "evaluation": {"harness": HARNESS}}, "a reward model generates no answers"),
        (
            {"evaluation": {"harness": {"tasks": ["gsm8k", "gsm8k"]}}},
            "spec.evaluation.harness: tasks has one name twice",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(new_life, conditions, spec, words):
    life = new_life(**spec)
    assert life.tick().create == ()
    assert conditions(life.status)["Accepted"] == "False/ConflictingFields"
    assert words in life.status["failure"]["message"]


def test_every_attempt_measures_on_what_the_first_one_began_with(world, measured, conditions):
    measured.tick()
    measured.ends("Complete", world.dead(0, outcome={"result": STAGED}))
    measured.tick(70)
    measured.ends("Failed", world.dead(1, outcome=world.failure("TrainerError")), seconds=100)
    measured.children = measured.children[-1:]  # the Job that staged them is gone
    outcome = measured.tick(120)
    assert of_component(outcome, "tasks") == []
    assert of_component(outcome, "training") == ["run-2"]
    assert plan_of(outcome)["harnessTasks"]["digest"] == DIGEST
    assert conditions(measured.status)["TasksReady"] == "True/Available"


def test_the_gate_keeps_the_model_as_rejected_and_names_the_reason(world, measured, conditions):
    measured.tick()
    measured.ends("Complete", world.dead(0, outcome={"result": STAGED}))
    measured.tick(70)
    ending = world.result()
    number = {"name": "acc", "dataset": "arc_easy", "base": "0.5", "tuned": "0.395", "purpose": "Harness"}
    ending["result"]["numbers"].append(number)
    ending["result"]["rejected"] = WORDS
    measured.ends("Complete", world.dead(0, outcome=ending), seconds=90)
    (version,) = measured.tick(91).record
    assert version["spec"]["approval"] == {"state": "Rejected", "by": "evaluation.harness", "comment": WORDS}
    assert version["spec"]["evaluation"]["numbers"][-1]["purpose"] == "Harness"
    staged = values_of(version["spec"]["lineage"])["harnessTasks"]
    assert staged["dataSets"] == STAGED["dataSets"]
    assert conditions(measured.status)["Failed"] == "True/RetentionGateFailed"
    assert measured.status["failure"]["message"].startswith(WORDS)
