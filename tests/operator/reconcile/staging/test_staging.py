"""Base models are staged once for all FineTuneJobs of a namespace that want the same one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.cluster.platforms import changed, platform_with

from hone_operator.desired.core import shared
from hone_operator.reconcile.core.outcome import Refusal

pytestmark = pytest.mark.pure
COMMIT = "c" * 40
FETCHED = {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": COMMIT}
HARNESS = {"tasks": ["arc_easy"]}


@pytest.fixture
def lives(new_life, at):
    """Makes so many jobs with the same base model; all see the same shared Jobs."""

    def make(count: int, uri: str = "hf://org/model", created: float = 0) -> list[Any]:
        made = [new_life(model={"uri": uri}) for _ in range(count)]
        for number, life in enumerate(made):
            life.job["metadata"] |= {"name": f"run{number}", "uid": f"uid{number}", "creationTimestamp": at(created)}
            life.shared = made[0].shared
        return made

    return make


def message(life: Any, type_: str = "ModelReady") -> str:
    return next(c["message"] for c in life.status["conditions"] if c["type"] == type_)


def staged(*outcomes: Any) -> list[str]:
    bodies = [b for outcome in outcomes for b in outcome.create if b["kind"] == "Job"]
    return [b["metadata"]["name"] for b in bodies if "hone.dev/content" in b["metadata"]["labels"]]


def test_a_hundred_jobs_have_one_staging_job(world, lives, conditions):
    jobs = lives(100)
    assert len(staged(*(life.tick() for life in jobs))) == 1
    (job,) = jobs[0].shared
    assert job.body["metadata"]["ownerReferences"][0]["kind"] == "PersistentVolumeClaim"
    container = job.body["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["requests"]["cpu"] == "100m"
    assert {conditions(life.status)["ModelReady"] for life in jobs} == {"False/Fetching"}
    jobs[0].ends("Complete", world.dead(0, outcome={"result": FETCHED}))
    for life in jobs:
        life.tick(70)
        assert conditions(life.status)["ModelReady"] == "True/Available"
        assert life.status["resolved"]["modelCommit"] == COMMIT


@pytest.mark.parametrize("uri", [f"hf://org/model@{COMMIT}", "hf://org/model@main", "hf://org/model"])
def test_what_the_store_holds_is_not_staged_again(world, lives, conditions, uri):
    first, later = lives(1, uri)[0], lives(1, uri, created=500)[0]
    later.shared = first.shared
    first.tick()
    first.ends("Complete", world.dead(0, outcome={"result": FETCHED}))
    assert staged(later.tick(500)) == []
    assert conditions(later.status)["ModelReady"] == "True/Available"


@pytest.mark.parametrize(("revision", "again"), [(COMMIT, False), ("main", True)])
def test_a_branch_is_looked_up_again_after_a_while_and_a_commit_never(world, lives, conditions, revision, again):
    uri = f"hf://org/model@{revision}"
    first, later = lives(1, uri)[0], lives(1, uri, created=5000)[0]
    later.shared = first.shared
    first.tick()
    first.ends("Complete", world.dead(0, outcome={"result": FETCHED}))
    assert bool(staged(later.tick(5000))) == again
    assert conditions(later.status)["ModelReady"] == ("False/Fetching" if again else "True/Available")


def test_other_credentials_images_and_limits_are_other_work():
    model = {"uri": "hf://org/model"}
    platform = platform_with("trainer:1")
    platforms = [platform, changed(platform, trainer__image="trainer:2"), changed(platform, staging__cpu="1")]
    found = [shared.base_model({"model": m}, p) for m in (model, {**model, "secretName": "t"}) for p in platforms]
    assert len({each.key for each in found if each}) == 6
    assert shared.base_model({"model": {"uri": "pvc://models/smol"}}, platform) is None
    assert shared.base_model({"model": {"modelVersion": "m-v1"}}, platform) is None


def test_a_job_that_waits_for_a_dataset_to_be_created_stages_nothing(lives, world, conditions):
    (life,) = lives(1)
    life.datasets = {}
    assert life.tick().create == ()
    assert conditions(life.status)["ModelReady"] == "False/WaitingForDataset"
    assert "Dataset rows does not exist" in message(life)
    life.datasets = {"rows": world.dataset(ready=False)}
    assert len(staged(life.tick(10))) == 1, "a Dataset that is being read holds up nothing"
    assert conditions(life.status)["DatasetReady"] == "False/DatasetNotReady"


def test_the_claim_is_made_before_the_job_that_it_owns(lives):
    (life,) = lives(1)
    life.claim = None
    outcome = life.tick()
    assert [b["kind"] for b in outcome.create] == ["PersistentVolumeClaim"]
    assert outcome.check_again_in == 1
    assert len(staged(life.tick(1))) == 1


def test_a_failure_is_reported_to_each_and_retried_once_for_all(world, lives, conditions):
    jobs = lives(3)
    (first,) = staged(*(life.tick() for life in jobs))
    jobs[0].ends("Failed", world.dead(69, outcome=world.failure("SourceUnreachable", "no route")), seconds=60)
    outcomes = [life.tick(61) for life in jobs]
    assert staged(*outcomes) == []
    for life, outcome in zip(jobs, outcomes, strict=True):
        assert conditions(life.status)["ModelReady"] == "False/SourceUnreachable"
        assert message(life).startswith("no route.")
        assert message(life).endswith("Attempt 2 starts at 2026-01-02T03:05:15Z.")
        assert [e.reason for e in outcome.events] == ["SourceUnreachable"]
    outcomes = [life.tick(70) for life in jobs]
    (second,) = staged(*outcomes)
    assert first != second
    late = lives(1)[0]
    late.shared = jobs[0].shared
    late.tick(75)
    assert conditions(late.status)["ModelReady"] == "False/SourceUnreachable", "also to one that was not looked at"
    assert message(late).endswith("Attempt 2 is under way.")
    jobs[0].ends("Complete", world.dead(0, outcome={"result": FETCHED}), seconds=90)
    assert [b["metadata"]["name"] for life in jobs for b in life.tick(91).delete] == [first]


def test_the_reason_lasts_until_the_next_attempt_has_an_answer(world, lives, conditions):
    (life,) = lives(1)
    life.tick()
    life.ends("Failed", world.dead(69, outcome=world.failure("SecretNotFound", "no secret token")), seconds=60)
    seen = []
    for seconds, pods in (
        (61, None),
        (70, None),
        (71, [world.unscheduled()]),
        (75, [world.pod()]),
    ):
        if pods:
            life.pods(*pods)
        outcome = life.tick(seconds)
        seen.append(message(life))
        assert conditions(life.status)["ModelReady"] == "False/SecretNotFound"
        assert conditions(life.status)["Ready"] == "False/SecretNotFound"
        assert len(outcome.events) == (1 if seconds == 61 else 0), "told once"
    assert all(words.startswith("no secret token. ") for words in seen)
    assert "Attempt 2 starts at" in seen[0]
    assert seen[1].endswith("Attempt 2 is under way.")
    assert "Attempt 2 waits: " in seen[2]
    assert "nvidia.com/gpu" in seen[2]
    assert seen[3] == seen[1]
    life.ends("Complete", world.dead(0, outcome={"result": FETCHED}), seconds=90)
    life.tick(91)
    assert conditions(life.status)["ModelReady"] == "True/Available"


def test_what_cannot_be_had_fails_every_job_that_waits_and_none_that_comes_later(world, lives, conditions):
    jobs, later = lives(2), lives(1, created=100)[0]
    later.shared = jobs[0].shared
    for life in jobs:
        life.tick()
    jobs[0].ends("Failed", world.dead(78, outcome=world.failure("UnsafeModel")), seconds=60)
    for life in jobs:
        assert life.tick(70).delete == (), "the Job is not theirs alone"
        assert conditions(life.status)["Failed"] == "True/UnsafeModel"
    assert len(staged(later.tick(100))) == 1
    assert conditions(later.status)["Failed"] == "False/NotFinished"


def test_a_refusal_of_the_api_server_is_reported(lives, conditions):
    (life,) = lives(1)
    life.tick(refusals=[Refusal("Job", "model-1", "QuotaExceeded", "exceeded quota: jobs")])
    assert conditions(life.status)["ModelReady"] == conditions(life.status)["Ready"] == "False/QuotaExceeded"
    assert message(life) == "Job model-1: exceeded quota: jobs"


def test_a_job_that_ends_early_leaves_the_shared_job_to_the_others(world, lives, conditions):
    first, second = lives(2)
    first.job["spec"]["evaluation"] = {"harness": HARNESS}
    first.tick()
    second.tick()
    tasks = next(n for n, j in enumerate(first.shared) if j.body["metadata"]["labels"]["hone.dev/component"] == "tasks")
    first.shared[tasks] = world.ended(
        world.child(first.shared[tasks].body, world.dead(78, outcome=world.failure("InvalidConfiguration"))), "Failed"
    )
    assert first.tick(70).delete == ()
    assert conditions(first.status)["Failed"] == "True/InvalidConfiguration"
    assert first.tick(75).delete == ()
    assert conditions(second.status)["ModelReady"] == "False/Fetching"


def plan_of(outcome: Any) -> Any:
    (config,) = (b for b in outcome.create if b["kind"] == "ConfigMap")
    return json.loads(config["data"]["plan.json"])


def test_rows_that_are_ready_are_tried_before_the_weights_are_fetched(world, lives):
    ready, unread = lives(2)
    assert [rows["path"].rpartition("/")[2] for rows in plan_of(ready.tick())["rows"]["datasets"]] == ["train.jsonl"]
    unread.shared = []
    unread.datasets = {"rows": world.dataset(ready=False)}
    assert "rows" not in plan_of(unread.tick()), "a download waits for no Dataset"


def test_rows_that_the_base_cannot_train_end_their_own_jobs_alone(world, lives, conditions):
    refused, same, other = lives(3)
    other.job["spec"]["sft"] = {"trainOn": "LastAssistant"}
    (first,) = staged(*(life.tick() for life in (refused, same, other)))
    refused.ends("Failed", world.dead(65, outcome=world.failure("NoTrainableRows", "none of 9 lines")), seconds=60)
    assert staged(refused.tick(61), same.tick(61)) == []
    assert {conditions(life.status)["ModelReady"] for life in (refused, same)} == {"False/NoTrainableRows"}
    assert refused.status["failure"]["code"] == "NoTrainableRows"
    (second,) = staged(other.tick(61))
    assert second != first
    assert conditions(other.status)["ModelReady"] == "False/Fetching"
    other.ends("Complete", world.dead(0, outcome={"result": FETCHED}), seconds=90)
    other.tick(91)
    assert conditions(other.status)["ModelReady"] == "True/Available"
