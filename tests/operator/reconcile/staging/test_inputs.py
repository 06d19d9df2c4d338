"""Several Datasets in a job: what it waits for, what it pins, and what the record says of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.pure
OTHER = "sha256:" + "1" * 64
REPLAY = [{"name": "rows"}, {"name": "general", "share": "10%"}]


def dataset(world: Any, name: str, **fields: Any) -> dict[str, Any]:
    body = world.dataset(**fields)
    body["metadata"]["name"] = name
    return body


def plan(outcome: Any) -> dict[str, Any]:
    return json.loads(next(b for b in outcome.create if b["kind"] == "ConfigMap")["data"]["plan.json"])


def test_replay_in_one_line_is_pinned_with_its_share(world, new_life):
    life = new_life(datasets=REPLAY)
    life.datasets["general"] = dataset(world, "general", digest=OTHER)
    made = plan(life.tick())
    assert [(d["name"], d["split"], d.get("share"), d["digest"]) for d in made["datasets"]] == [
        ("rows", "train", None, world.digest),
        ("general", "train", "10%", OTHER),
    ]
    assert [(d["name"], d["split"]) for d in made["evaluationDatasets"]] == [
        ("rows", "validation"),
        ("general", "validation"),
    ]
    assert life.status["resolved"]["datasetDigests"] == {"rows": world.digest, "general": OTHER}
    assert life.status["resolved"]["evaluationDatasets"] == ["rows/validation", "general/validation"]


def test_held_out_sets_that_are_named_are_the_only_ones(world, new_life):
    life = new_life(evaluationDatasets=[{"name": "exam", "split": "test"}, {"name": "rows"}])
    splits = [{"name": "test", "rows": 5}, {"name": "train", "rows": 0}]
    life.datasets["exam"] = dataset(world, "exam", digest=OTHER, splits=splits)
    made = plan(life.tick())
    assert [d["path"] for d in made["evaluationDatasets"]] == [
        f"/store/datasets/{OTHER.removeprefix('sha256:')}/test.jsonl",
        f"/store/datasets/{world.digest.removeprefix('sha256:')}/validation.jsonl",
    ]
    assert [d["name"] for d in made["datasets"]] == ["rows"]


def test_a_split_that_is_trained_on_is_not_held_out(world, new_life):
    life = new_life(datasets=[{"name": "rows"}, {"name": "rows", "split": "validation"}])
    assert plan(life.tick()).get("evaluationDatasets", []) == []


@pytest.mark.parametrize(
    ("spec", "change", "reason"),
    [
        ({"datasets": REPLAY}, None, "DatasetNotFound"),
        ({"datasets": REPLAY}, {"ready": False}, "DatasetNotReady"),
        ({"evaluationDatasets": [{"name": "general"}]}, None, "DatasetNotFound"),
        ({"evaluationDatasets": [{"name": "general"}]}, {"ready": False}, "DatasetNotReady"),
        ({"evaluationDatasets": [{"name": "general", "split": "test"}]}, {}, "SplitNotFound"),
    ],
)
def test_every_dataset_is_waited_for(world, new_life, conditions, spec, change, reason):
    life = new_life(**spec)
    if change is not None:
        life.datasets["general"] = dataset(world, "general", **change)
    assert life.tick().create == ()
    assert conditions(life.status)["DatasetReady"] == f"False/{reason}"
    assert "general" in next(c for c in life.status["conditions"] if c["type"] == "DatasetReady")["message"]


@pytest.mark.parametrize(
    ("method", "format", "taken"),
    [
        ("SFT", "Chat (Auto: messages with role and content)", True),
        ("SFT", "Preference", False),
        ("DPO", "Preference (Auto: the first 3 rows have chosen and rejected)", True),
        ("DPO", "KTO", False),
        ("KTO", "Preference", True),
        ("DAPT", "Chat", False),
        ("Reward", None, True),
    ],
)
def test_a_dataset_that_the_method_cannot_learn_from_is_reported_before_a_pod_starts(
    world, new_life, conditions, method, format, taken
):
    life = new_life(method=method)
    life.datasets["rows"]["status"]["formatDetected"] = format
    assert bool(life.tick().create) is taken
    assert conditions(life.status)["DatasetReady"] == ("True/Ready" if taken else "False/DatasetFormatMismatch")
    if not taken:
        message = next(c for c in life.status["conditions"] if c["type"] == "DatasetReady")["message"]
        assert f"has the format {format.split(' ')[0]}; method {method} takes" in message


@pytest.mark.parametrize(("level", "taken"), [("Sequence", True), ("Logits", False)])
def test_prompts_alone_have_no_tokens_to_compare_a_teacher_on(new_life, conditions, level, taken):
    life = new_life(method="Distillation", distillation={"teacherModelVersion": "large-v1", "level": level})
    life.datasets["rows"]["status"]["formatDetected"] = "Verifiable"
    life.tick()
    assert conditions(life.status)["DatasetReady"] == ("True/Ready" if taken else "False/DatasetFormatMismatch")
    if not taken:
        message = next(c for c in life.status["conditions"] if c["type"] == "DatasetReady")["message"]
        assert "distillation.level Logits (Sequence needs no answers) takes Chat" in message


@pytest.mark.parametrize(
    ("format", "rewards", "reason"),
    [
        ("Chat", [{"type": "Number"}], None),
        ("Text", [{"type": "Number"}], "DatasetFormatMismatch"),
        ("Text", [], None),
    ],
)
def test_answers_are_scored_where_there_are_prompts(world, new_life, conditions, format, rewards, reason):
    life = new_life(evaluation={"rewards": rewards})
    life.datasets["rows"]["status"]["formatDetected"] = format
    made = life.tick().create
    assert conditions(life.status)["DatasetReady"] == (f"False/{reason}" if reason else "True/Ready")
    assert bool(made) is not bool(reason)
    if reason:
        message = next(c for c in life.status["conditions"] if c["type"] == "DatasetReady")["message"]
        assert "has the format Text; evaluation.rewards takes Chat" in message


def test_answers_are_scored_where_rows_are_held_out(new_life, conditions):
    rows = [{"name": "rows"}, {"name": "rows", "split": "validation"}]
    life = new_life(datasets=rows, evaluation={"rewards": [{"type": "Number"}]})
    assert life.tick().create == ()
    assert conditions(life.status)["DatasetReady"] == "False/SplitNotFound"


def test_the_options_of_the_method_reach_the_plan(new_life):
    life = new_life(method="DPO", dpo={"loss": "IPO", "beta": "0.2"})
    made = plan(life.tick())
    assert (made["method"], made["dpo"]) == ("DPO", {"loss": "IPO", "beta": "0.2"})


def test_an_attempt_after_the_datasets_are_gone_gets_the_same_rows(world, new_life):
    life = new_life(datasets=REPLAY)
    life.datasets["general"] = dataset(world, "general", digest=OTHER)
    first = plan(life.tick())
    life.datasets = {"rows": dataset(world, "rows", digest=OTHER, splits=[{"name": "train", "rows": 1}])}
    life.ends("Failed", world.disrupted())
    second = plan(life.tick(70))
    assert (first.pop("attempt", 1), second.pop("attempt")) == (1, 2)
    assert (first.pop("exportFolder"), second.pop("exportFolder")) == ("attempt-1", "attempt-2")
    assert second == first


def test_what_each_dataset_gave_is_in_status_and_record(world, new_life):
    life = new_life(datasets=REPLAY)
    life.datasets["general"] = dataset(world, "general", digest=OTHER)
    life.tick()
    use = {"split": "train", "rowShare": "90.0%", "tokenShare": "95.0%", "passes": "1.00"}
    used = [
        {"name": "rows", "rows": 900, "tokens": 9500, **use},
        {"name": "general", "rows": 100, "tokens": 500, **use, "rowShare": "10.0%", "tokenShare": "5.0%"},
    ]
    result = world.result()
    result["result"]["datasets"] = used
    life.ends("Complete", world.dead(0, outcome=result))
    record = life.tick(70).record[0]
    assert life.status["resolved"]["datasets"] == used
    assert record["spec"]["lineage"]["datasets"] == [
        {"name": "rows", "split": "train", "digest": world.digest, "rows": 900, "tokens": 9500},
        {"name": "general", "split": "train", "digest": OTHER, "rows": 100, "tokens": 500},
    ]


def test_licences_and_digests_of_base_and_data_are_in_status_and_record(world, new_life):
    life = new_life(model={"uri": "hf://org/model@main"})
    life.datasets["rows"]["status"]["croissant"] = {"license": "https://choosealicense.com/licenses/mit/"}
    life.tick()
    fetched = {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "abc", "license": "apache-2.0"}
    fetched["digest"] = OTHER
    life.ends("Complete", world.dead(0, outcome={"result": fetched}))
    life.tick(70)
    life.ends("Complete", world.dead(0, outcome=world.result()), seconds=80)
    record = life.tick(90).record[0]
    assert life.status["resolved"]["modelLicense"] == "apache-2.0"
    assert record["spec"]["lineage"]["baseModel"]["license"] == "apache-2.0"
    assert record["spec"]["lineage"]["baseModel"]["digest"] == OTHER
    assert record["spec"]["lineage"]["datasets"][0]["license"] == "https://choosealicense.com/licenses/mit/"
