"""spec.evaluations of a ModelVersion, decided from what is observed."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pytest
from support.lives.version_life import Life

from hone_operator.reconcile.core import references
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.upstream import Upstream
from hone_operator.reconcile.version.measuring import ObservedForEvaluations

pytestmark = pytest.mark.pure
NEW_ROWS = "sha256:" + "7" * 64
ENTRY = {"dataset": "rows", "against": "models://tutor@champion"}
READY = {"conditions": [{"type": "Ready", "status": "True", "reason": "Verified", "message": ""}]}
LOSS = {"name": "loss", "dataset": "rows/validation", "base": "3", "tuned": "1", "against": "2"}


class Evaluated(Life):
    """Version 3 of a model, and what its evaluations name."""

    def __init__(self, world: Any, *entries: dict[str, Any]) -> None:
        super().__init__(world)
        self.version["metadata"] |= {"name": "tutor-v3"}
        spec = self.version["spec"]
        spec |= {"version": 3, "evaluations": list(entries)}
        spec["lineage"]["baseModel"]["location"] = "pvc://hone-store/base-models/org--model/abc"
        self.dataset, self.others = world.dataset(), [self.other(n) for n in (1, 2, 4)]
        self.champion: int | None = 2
        self.verified()

    def other(self, number: int, model: str = "tutor") -> dict[str, Any]:
        spec = {**self.version["spec"], "modelName": model, "version": number, "evaluations": None}
        files = {"format": "Merged", "uri": f"pvc://hone-store/models/run-{number}/merged", "sizeBytes": 1}
        spec["artifacts"] = [{**files, "digest": self.world.digest}]
        name = {"name": f"{model}-v{number}", "namespace": "team"}
        return {"kind": "ModelVersion", "metadata": name, "spec": spec, "status": READY}

    def tick(
        self, seconds: float = 0, missing_claim: str | None = None, missing_targets: Collection[str] = (), **seen: Any
    ) -> Outcome:
        if not hasattr(self, "champion"):
            return super().tick(seconds)
        points = [{"name": "champion", "modelVersion": f"tutor-v{self.champion}"}] if self.champion else []
        model = {"metadata": {"name": "tutor", "generation": 1}, "status": {"observedGeneration": 1, "aliases": points}}
        versions = {body["metadata"]["name"]: body for body in (*self.others, self.version)}
        upstream = Upstream(versions=versions, models={"tutor": model})
        return super().tick(seconds, evaluations=ObservedForEvaluations({"rows": self.dataset}, upstream), **seen)

    def plan(self, outcome: Outcome) -> Any:
        (plan,) = [json.loads(b["data"]["plan.json"]) for b in outcome.create if b["kind"] == "ConfigMap"]
        return plan

    def measured(self, seconds: float) -> None:
        """Its next Job ends well."""
        assert len(self.plan(self.tick(seconds))) > 0
        self.ends("Complete", self.world.dead(0, outcome={"result": {"kind": "Measure", "numbers": [LOSS]}}))
        self.tick(seconds + 61)

    @property
    def entry(self) -> dict[str, Any]:
        (entry,) = self.status["evaluations"]
        return dict(entry)


@pytest.fixture
def life(world: Any) -> Evaluated:
    return Evaluated(world, ENTRY)


def test_a_job_measures_both_and_the_status_has_the_numbers(life: Evaluated, conditions: Any) -> None:
    outcome = life.tick(61)
    plan = life.plan(outcome)
    assert (plan["kind"], plan["rows"]["name"], plan["rows"]["split"]) == ("Measure", "rows", "validation")
    assert plan["model"]["path"] == "/store/base-models/org--model/abc"
    assert plan["model"]["adapter"] == {"path": "/store/models/job-uid/adapter", "digest": life.world.digest}
    assert plan["against"] == {"path": "/store/models/run-2/merged", "digest": life.world.digest}
    assert conditions(life.status)["Measured"] == "False/Measuring"
    assert conditions(life.status)["Ready"] == "True/Verified", "it can be used meanwhile"
    (job,) = [body for body in outcome.create if body["kind"] == "Job"]
    folders = [m["subPath"] for m in job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] if "subPath" in m]
    assert folders == ["datasets", "base-models/org--model", "models/job-uid", "models/run-2"]
    assert {tuple(path) for path in references.addresses("Job", {**job, "status": {}}, "hone-store")} >= {
        ("models", "run-2", "merged")
    }
    assert life.tick(62).create == ()
    life.ends("Complete", life.world.dead(0, outcome={"result": {"kind": "Measure", "numbers": [LOSS]}}))
    life.tick(121)
    shown = {name: value for name, value in life.entry.items() if name != "key"}
    assert shown == {
        "dataset": "rows",
        "split": "validation",
        "state": "Measured",
        "tries": 1,
        "digest": life.world.digest,
        "against": "tutor-v2",
        "numbers": [{**LOSS, "purpose": "HeldOut"}],
        "evaluatedAt": "2026-01-02T03:05:05Z",
    }
    assert conditions(life.status)["Measured"] == "True/Measured"
    assert life.children == []
    assert life.tick(1000) == Outcome()


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda life: life.dataset["status"].update(digest=NEW_ROWS), True),
        (lambda life: setattr(life, "champion", 1), True),
        (lambda life: setattr(life, "champion", 3), False),
        (lambda life: setattr(life, "champion", 4), False),
        (lambda life: life.version["spec"]["evaluations"][0].update(maxRows=9), True),
        (lambda life: life.dataset["status"].update(conditions=[]), False),
        (lambda life: life.others[1].update(status={}), False),
    ],
    ids=["rows", "older champion", "itself", "newer champion", "entry", "rows are read again", "not Ready for a while"],
)
def test_what_is_measured_again(life: Evaluated, change: Any, again: bool) -> None:
    life.measured(61)
    change(life)
    assert bool(life.tick(200).create) == again
    assert (life.entry["state"], life.entry["against"], len(life.entry["numbers"])) == (
        "Measuring" if again else "Measured",
        "tutor-v2",
        1,
    ), "what was measured stays meanwhile"


def test_a_champion_is_compared_on_new_rows_with_the_version_that_it_replaced(life: Evaluated) -> None:
    life.measured(61)
    life.champion = 3
    life.dataset["status"]["digest"] = NEW_ROWS
    plan = life.plan(life.tick(200))
    assert (plan["rows"]["digest"], plan["against"]["path"]) == (NEW_ROWS, "/store/models/run-2/merged")
    life.others = []
    plan = life.plan(life.tick(300))
    assert "against" not in plan, "that was deleted"
    life.ends("Complete", life.world.dead(0, outcome={"result": {"kind": "Measure", "numbers": [LOSS]}}))
    life.tick(400)
    assert "against" not in life.entry
    assert "tutor-v3, which this version cannot replace" in life.entry["message"]


def test_an_alias_that_points_to_none_is_recorded(life: Evaluated) -> None:
    life.champion = None
    life.measured(61)
    assert (life.entry["against"], life.entry.get("message")) == ("", None)
    life.champion = 1
    assert life.plan(life.tick(200))["against"]["path"] == "/store/models/run-1/merged"


@pytest.mark.parametrize(
    ("entry", "reason", "words"),
    [
        ({"dataset": "other"}, "DatasetNotFound", "Dataset other does not exist"),
        ({"dataset": "rows", "split": "test"}, "SplitNotFound", "no rows in split test"),
        ({"dataset": "rows", "against": "tutor-v9"}, "ModelVersionNotFound", "against: ModelVersion tutor-v9 does not"),
    ],
)
def test_what_it_waits_for(world: Any, conditions: Any, entry: dict[str, Any], reason: str, words: str) -> None:
    life = Evaluated(world, entry)
    assert life.tick(61).create == ()
    assert (life.entry["state"], life.entry["reason"]) == ("Pending", reason)
    assert words in life.entry["message"]
    assert conditions(life.status)["Measured"] == f"False/{reason}"
    assert conditions(life.status)["Ready"] == "True/Verified"


def test_a_version_that_is_named_is_compared_whatever_its_number(world: Any) -> None:
    life = Evaluated(world, {"dataset": "rows", "against": "tutor-v4"})
    assert life.plan(life.tick(61))["against"]["path"] == "/store/models/run-4/merged"


def test_a_failure_is_final_until_something_of_the_entry_changes(life: Evaluated, conditions: Any) -> None:
    life.tick(61)
    life.ends("Failed", life.world.dead(78, outcome=life.world.failure("InvalidConfiguration", "another tokenizer")))
    life.tick(62)
    assert (life.entry["state"], life.entry["reason"]) == ("Failed", "InvalidConfiguration")
    assert "another tokenizer" in life.entry["message"]
    assert conditions(life.status)["Measured"] == "False/InvalidConfiguration"
    life.children.clear()
    assert life.tick(10_000).create == ()
    life.champion = 1
    assert life.tick(10_001).create


def test_an_entry_that_is_removed_leaves_nothing(life: Evaluated, conditions: Any) -> None:
    life.measured(61)
    life.dataset["status"]["digest"] = NEW_ROWS
    life.tick(200)
    (job,) = life.children
    life.version["spec"]["evaluations"] = []
    outcome = life.tick(300)
    assert [body["metadata"]["name"] for body in outcome.delete] == [job.name]
    assert "evaluations" not in life.status
    assert "Measured" not in conditions(life.status)


def test_a_merged_model_is_measured_with_the_base_that_the_store_has(world: Any) -> None:
    life = Evaluated(world, {"dataset": "rows"})
    life.version["spec"]["artifacts"][0]["format"] = "Full"
    plan = life.plan(life.tick(61))
    assert (plan["model"]["path"], plan["basePath"]) == (
        "/store/models/job-uid/adapter",
        "/store/base-models/org--model/abc",
    )
