"""What must not be forgotten, from the spec to the record: the sets are pinned, and the gate ends the job."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.pure
OTHER = "sha256:" + "1" * 64
RETENTION = {"datasets": [{"name": "general", "split": "test"}], "maxRegression": "5%"}
NUMBER = {"type": "Number"}
WORDS = "evaluation.retention: worse than the base model beyond 5.0%: perplexity on general/test by 21.0%."


def general(world: Any, form: str = "Text", **fields: Any) -> dict[str, Any]:
    body = world.dataset(digest=OTHER, splits=[{"name": "test", "rows": 5}], formatDetected=form, **fields)
    body["metadata"]["name"] = "general"
    return body


@pytest.fixture
def kept(world, new_life):
    """A job with a gate, whose Datasets are Ready."""
    life = new_life(evaluation={"retention": RETENTION})
    life.datasets["general"] = general(world)
    return life


def test_the_sets_are_pinned_and_go_into_the_plan(world, kept):
    outcome = kept.tick()
    plan = json.loads(next(b for b in outcome.create if b["kind"] == "ConfigMap")["data"]["plan.json"])
    folder = OTHER.removeprefix("sha256:")
    assert plan["retentionDatasets"] == [
        {"name": "general", "split": "test", "path": f"/store/datasets/{folder}/test.jsonl", "digest": OTHER}
    ]
    assert plan["evaluation"]["retention"]["maxRegression"] == "5%"
    assert kept.status["resolved"]["datasetDigests"] == {"rows": world.digest, "general": OTHER}


@pytest.mark.parametrize(
    ("form", "ready", "reason"),
    [
        ("Verifiable", True, "DatasetFormatMismatch"),
        ("Text", False, "DatasetNotReady"),
        (None, True, "DatasetNotFound"),
    ],
)
def test_a_set_that_cannot_be_measured_is_reported_before_a_pod_starts(world, kept, conditions, form, ready, reason):
    kept.datasets = {"rows": world.dataset()} | ({"general": general(world, form, ready=ready)} if form else {})
    assert kept.tick().create == ()
    assert conditions(kept.status)["DatasetReady"] == f"False/{reason}"


def rejected(world: Any) -> dict[str, Any]:
    outcome = world.result()
    number = {"name": "perplexity", "dataset": "general/test", "base": "10", "tuned": "12.1", "purpose": "Retention"}
    outcome["result"]["numbers"].append(number)
    outcome["result"]["rejected"] = WORDS
    return outcome


def test_a_model_that_forgot_too_much_is_kept_as_rejected_and_the_job_fails(world, kept, conditions):
    kept.tick()
    kept.ends("Complete", world.dead(0, outcome=rejected(world)))
    outcome = kept.tick(61)
    (version,) = outcome.record
    assert version["spec"]["approval"] == {"state": "Rejected", "by": "evaluation.retention", "comment": WORDS}
    assert [n["purpose"] for n in version["spec"]["evaluation"]["numbers"]] == ["HeldOut", "Retention"]
    assert [b["metadata"]["name"] for b in outcome.create] == ["hone-model-versions"], "its number is never used again"
    found = conditions(kept.status)
    assert (found["Failed"], found["Succeeded"]) == ("True/RetentionGateFailed", "False/Failed")
    assert (found["Ready"], found["Stalled"]) == ("False/RetentionGateFailed", "True/RetentionGateFailed")
    assert kept.status["phase"] == "Failed"
    assert kept.status["modelVersionName"] == "tutor-v1"
    assert kept.status["failure"]["message"] == f"{WORDS} ModelVersion tutor-v1 is kept as rejected."
    assert "replay" in kept.status["failure"]["hint"]
    assert kept.status["attempts"][-1]["outcome"] == "Succeeded"
    assert kept.tick(62).status is None, "that is the end"


def test_a_model_that_passes_succeeds(world, kept, conditions):
    kept.tick()
    kept.ends("Complete", world.dead(0, outcome=world.result()))
    (version,) = kept.tick(61).record
    assert version["spec"]["approval"]["state"] == "Candidate"
    assert conditions(kept.status)["Succeeded"] == "True/Completed"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"method": "Reward"}, "a reward model generates no answers"),
        (
            {"adapter": {"type": "DoRA"}, "evaluation": {"retention": {**RETENTION, "interpolate": True}}},
            "use adapter type LoRA",
        ),
        ({"evaluation": {"metrics": ["MultipleChoice"]}}, "rows of SFT do not have"),
        (
            {"method": "GRPO", "grpo": {"rewards": [{"type": "Length", "length": {"max": 9}}]}},
            "GRPO has only prompts",
        ),
        ({"method": "DAPT", "evaluation": {"rewards": [NUMBER]}}, "the rows of DAPT are texts"),
        ({"evaluation": {"rewards": [NUMBER, NUMBER]}}, "more than one is named number"),
        ({"method": "Reward", "evaluation": {"rewards": [NUMBER]}}, "a reward model generates no answers"),
        ({"evaluation": {"rewards": [{**NUMBER, "name": "margin"}]}}, "methods have metrics of this name"),
        ({"evaluation": {"rewards": [{**NUMBER, "weight": "2"}]}}, "remove the weight of number"),
        (
            {
                "method": "GRPO",
                "grpo": {"rewards": [{**NUMBER, "weight": "2"}]},
                "evaluation": {"rewards": [{**NUMBER, "final": {"marked": True}}]},
            },
            "grpo.rewards has a different reward named number",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(new_life, conditions, spec, words):
    evaluation = {"retention": RETENTION, **({"metrics": ["F1"]} if spec.get("method") == "GRPO" else {})}
    life = new_life(**{"evaluation": evaluation, **spec})
    life.tick()
    assert conditions(life.status)["Accepted"] == "False/ConflictingFields"
    assert words in life.status["failure"]["message"]
