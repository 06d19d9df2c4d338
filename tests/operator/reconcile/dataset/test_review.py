"""A Dataset of generated rows: it waits for people, and materializes again whenever they have decided."""

from __future__ import annotations

from typing import Any

import pytest
from support.cluster.desired_objects import all_containers
from support.lives.dataset_life import Life

from hone_api.contract.plan_reading import parse_plan
from hone_operator.reconcile.core.outcome import Outcome

pytestmark = pytest.mark.pure

DIGEST = "sha256:" + "0" * 64


class Reviewed(Life):
    """A Dataset with synthesis that is reconciled again and again."""

    def __init__(self, world: Any, **synthesis: Any):
        asked = {"template": "Paraphrase", "endpoint": "http://model.team.svc/v1", "rows": 5, **synthesis}
        super().__init__(world, synthesis=asked)

    def reviewed(self, seconds: float, digest: str | None = None, **synthetic: Any) -> None:
        """The newest Job ends with this state of the review, for the decisions that its plan had."""
        rows = {"generated": 6, "review": self.review, **synthetic}
        result = {"kind": "Materialize", "rows": 3 if digest else 0, "synthetic": rows}
        if digest:
            result |= {"digest": digest, "path": f"datasets/{digest[7:]}"}
        self.ends("Complete", self.world.dead(0, outcome={"result": result}), seconds=seconds)

    def decided(self, mark: str) -> None:
        """What `hone dataset review` leaves."""
        self.dataset["metadata"]["annotations"] = {"hone.dev/review": mark}

    @property
    def review(self) -> str | None:
        return (self.dataset["metadata"].get("annotations") or {}).get("hone.dev/review")


@pytest.fixture
def life(world):
    return Reviewed(world)


def message(life: Life, type_: str = "Ready") -> str:
    return next(c["message"] for c in life.status["conditions"] if c["type"] == type_)


def test_rows_wait_for_people_with_the_command_to_type(life, conditions):
    life.tick()
    life.reviewed(60, pending=5)
    outcome = life.tick(61)
    assert outcome.create == ()
    assert conditions(life.status) == {
        "Accepted": "True/Accepted",
        "ReviewPending": "True/AwaitingReview",
        "Ready": "False/AwaitingReview",
        "Reconciling": "True/AwaitingReview",
        "Stalled": "False/AwaitingReview",
    }
    assert life.status["phase"] == "AwaitingReview"
    assert life.status["synthetic"]["pending"] == 5
    assert "5 wait for a person: hone dataset review rows --namespace team." in message(life)
    assert [e.reason for e in outcome.events] == ["AwaitingReview"]
    assert life.tick(10_000) == Outcome(), "people take the time they need"


def test_decisions_are_materialised_until_the_review_is_complete(life, conditions):
    life.tick()
    life.reviewed(60, pending=5)
    life.tick(61)
    life.decided("2-aaaa")
    outcome = life.tick(100)
    config, job = outcome.create
    assert parse_plan(config["data"]["plan.json"]).review == "2-aaaa"
    assert job["metadata"]["labels"]["hone.dev/try"] == "2"
    assert conditions(life.status)["ReviewPending"] == "True/AwaitingReview", "it stays in view meanwhile"
    life.reviewed(160, pending=3, accepted=1, rejected=1)
    life.tick(161)
    assert conditions(life.status)["Ready"] == "False/AwaitingReview"
    assert "1 generated rows are accepted, 1 rejected, 3 wait" in message(life)
    life.decided("5-bbbb")
    life.tick(200)
    life.reviewed(260, digest=DIGEST, accepted=3, rejected=2, complete=True)
    life.tick(261)
    assert conditions(life.status)["Ready"] == "True/Materialized"
    assert conditions(life.status)["ReviewPending"] == "False/Reviewed"
    assert life.status["digest"] == DIGEST
    life.children.clear()
    assert life.tick(1000) == Outcome()


def test_decisions_during_a_try_are_not_lost(life):
    life.tick()
    life.reviewed(60, pending=5, review=None)
    life.decided("1-aaaa")
    outcome = life.tick(61)
    assert len(outcome.create) == 2
    assert parse_plan(outcome.create[0]["data"]["plan.json"]).review == "1-aaaa"


def test_a_change_of_mind_after_ready_is_also_materialised(life, conditions):
    life.tick()
    life.reviewed(60, digest=DIGEST, accepted=5, complete=True)
    life.tick(61)
    life.decided("6-cccc")
    assert life.tick(100).create
    assert conditions(life.status)["Ready"] == "False/Materializing"
    other = "sha256:" + "1" * 64
    life.reviewed(160, digest=other, accepted=4, rejected=1, complete=True)
    life.tick(161)
    assert life.status["digest"] == other


def test_nothing_left_to_review_and_too_few_accepted_says_what_to_do(world):
    life = Reviewed(world, review={"accepted": 5})
    life.tick()
    life.reviewed(60, accepted=2, rejected=3, wanted=5)
    life.tick(61)
    assert "2 of 5 wanted generated rows are accepted, 3 rejected, none is left: raise spec.synthesis.rows" in message(
        life
    )


def test_a_sample_is_reported_with_its_confidence(life):
    said = "0 of 59 sampled rows are bad: with 95% confidence at most 45 of all 1000 rows (4.5%) were."
    life.tick()
    life.reviewed(60, digest=DIGEST, accepted=1000, complete=True, sample=said)
    life.tick(61)
    assert said in message(life, "ReviewPending")


def test_credentials_are_mounted_each_at_its_place(world):
    judge = {"endpoint": "https://judge.example/v1", "secretName": "judge-key"}
    life = Reviewed(world, secretName="key", filters={"judge": judge})
    config, job = life.tick().create
    plan = parse_plan(config["data"]["plan.json"])
    spec = job["spec"]["template"]["spec"]
    mounted = {m["mountPath"]: m["name"] for m in all_containers(job)[0]["volumeMounts"]}
    named = {v["name"]: v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
    assert named[mounted[plan.synthesis_secret_path]] == "key"
    assert named[mounted[plan.judge_secret_path]] == "judge-key"


def test_what_the_pod_of_a_review_is_made_of_comes_from_the_platform_alone(life):
    life.tick()
    life.children[-1].body["spec"]["template"]["spec"]["containers"][0]["image"] = "planted/image:1"
    life.reviewed(60, pending=5)
    life.tick(61)
    platform = life.world.platform
    assert life.status["reviewPod"] == {
        "image": platform.trainer.image,
        "imagePullPolicy": platform.trainer.image_pull_policy,
        "imagePullSecrets": list(platform.trainer.image_pull_secrets),
        "claim": platform.store.claim_name,
    }
