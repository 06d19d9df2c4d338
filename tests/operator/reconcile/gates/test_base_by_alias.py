"""A job that starts from an alias: it means one ModelVersion, from the moment the job is accepted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.lives.versions import version_spec

from hone_operator.desired.core import modelref
from hone_operator.reconcile.core.upstream import Upstream, Wait, resolve_alias

pytestmark = pytest.mark.pure


def model(*aliases: str, generation: int = 1, seen: int | None = 1) -> dict[str, Any]:
    """The Model tutor whose aliases point to version 1, 2, …"""
    entries = [{"name": name, "modelVersion": f"tutor-v{n}"} for n, name in enumerate(aliases, 1)]
    status = {"aliases": entries} | ({"observedGeneration": seen} if seen else {})
    return {"kind": "Model", "metadata": {"name": "tutor", "generation": generation}, "spec": {}, "status": status}


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([model("champion")], "tutor-v1"),
        ([model("canary", "champion")], "tutor-v2"),
        ([], "ModelMissing"),
        ([model("champion", generation=2)], "ModelMissing"),
        ([model("champion", seen=None)], "ModelMissing"),
        ([model("canary")], "AliasNotFound"),
        ([model()], "AliasNotFound"),
    ],
)
def test_what_an_alias_means(models: list[Any], expected: str) -> None:
    found = resolve_alias(("tutor", "champion"), Upstream(models=dict(zip(["tutor"], models, strict=False))))
    assert (str(found.reason) if isinstance(found, Wait) else found) == expected


def version(name: str) -> dict[str, Any]:
    base = {"uri": "hf://org/model", "commit": "abc", "location": "pvc://hone-store/base-models/x"}
    uri = f"pvc://hone-store/models/{name}/merged"
    spec = version_spec("Merged", uri, name[-1], int(name[-1]), baseModel=base)
    conditions = [{"type": "Ready", "status": "True", "reason": "Verified", "message": ""}]
    return {"kind": "ModelVersion", "metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions}}


def test_a_job_means_one_version_however_the_alias_moves(new_life: Any, conditions: Any) -> None:
    life = new_life(model={"uri": "models://tutor@champion"})
    life.upstream = Upstream(models={"tutor": model("canary")})
    first = life.tick()
    assert (first.create, conditions(life.status)["ModelReady"]) == ((), "False/AliasNotFound")
    assert "baseModelVersion" not in life.status

    versions = {name: version(name) for name in ("tutor-v1", "tutor-v2")}
    versions["tutor-v1"]["status"]["conditions"][0]["status"] = "False"
    life.upstream = Upstream(models={"tutor": model("champion")}, versions=versions)
    life.tick()
    assert life.status["baseModelVersion"] == "tutor-v1"
    assert conditions(life.status)["ModelReady"] == "False/WaitingForModelVersion"

    versions["tutor-v1"] = version("tutor-v1")
    life.upstream = Upstream(models={"tutor": model("canary", "champion")}, versions=versions)
    started = life.tick()
    assert [b["metadata"]["name"] for b in started.create if b["kind"] == "Job"] == ["run-1"]
    assert life.status["resolved"]["modelVersion"]["name"] == "tutor-v1"
    (plan,) = (b["data"]["plan.json"] for b in started.create if b["kind"] == "ConfigMap")
    assert "models/tutor-v1/merged" in plan
    assert "models://" not in plan

    life.status.pop("baseModelVersion")
    life.upstream = Upstream()
    life.tick()
    assert life.status["baseModelVersion"] == "tutor-v1"


def plans(outcome: Any) -> list[Any]:
    """Those of the attempts that are created."""
    return [json.loads(b["data"]["plan.json"]) for b in outcome.create if b["kind"] == "ConfigMap"]


AGAINST = {"evaluation": {"against": "models://tutor@champion"}}


def test_a_job_is_compared_with_the_version_in_use_when_it_starts(new_life: Any, conditions: Any) -> None:
    life = new_life(**AGAINST)
    versions = {name: version(name) for name in ("tutor-v1", "tutor-v2")}
    life.upstream = Upstream(models={"tutor": model("champion", seen=None)}, versions=versions)
    assert life.tick().create == ()
    assert conditions(life.status)["ModelReady"] == "False/ModelMissing"

    life.upstream = Upstream(models={"tutor": model("canary", "champion")}, versions=versions)
    (plan,) = plans(life.tick())
    assert (plan["comparedWith"], plan.get("models", {})) == ("tutor-v2", {})
    assert plan["comparedModel"]["path"].endswith("models/tutor-v2/merged")
    assert life.status["resolved"]["comparedWith"] == "tutor-v2"


def test_a_job_waits_while_the_version_in_use_cannot_be_compared(new_life: Any, conditions: Any) -> None:
    """The alias leaves it, or a person moves the alias."""
    life = new_life(**AGAINST)
    broken = version("tutor-v1")
    broken["status"]["conditions"] = [
        {"type": "Stalled", "status": "True", "reason": "ChecksumMismatch", "message": ""},
        {"type": "Ready", "status": "False", "reason": "ChecksumMismatch", "message": "other bytes"},
    ]
    life.upstream = Upstream(models={"tutor": model("champion")}, versions={"tutor-v1": broken})
    assert life.tick().create == ()
    assert conditions(life.status)["ModelReady"] == "False/WaitingForModelVersion"
    life.upstream = Upstream(models={"tutor": model("canary", "champion")}, versions={"tutor-v2": version("tutor-v2")})
    (plan,) = plans(life.tick())
    assert plan["comparedWith"] == "tutor-v2"


def test_a_job_is_compared_with_a_version_that_it_names(new_life: Any, conditions: Any) -> None:
    """Without a Model, hence without the right to change one: a sweep compares its trials so."""
    life = new_life(evaluation={"against": "tutor-v1"})
    life.upstream = Upstream()
    assert life.tick().create == ()
    assert conditions(life.status)["ModelReady"] == "False/ModelVersionNotFound"
    life.upstream = Upstream(versions={"tutor-v1": version("tutor-v1")})
    (plan,) = plans(life.tick())
    assert (plan["comparedWith"], plan.get("models", {})) == ("tutor-v1", {})
    assert plan["comparedModel"]["path"].endswith("models/tutor-v1/merged")
    assert modelref.versions(life.job["spec"]) == {"tutor-v1"}


@pytest.mark.parametrize(("method", "other"), [("Reward", "SFT"), ("SFT", "Reward"), ("DPO", "Reward")])
def test_a_job_is_compared_with_a_model_of_its_kind(new_life: Any, conditions: Any, method: str, other: str) -> None:
    """A reward model returns a number and no text."""
    life = new_life(method=method, **AGAINST)
    versions = {"tutor-v1": version("tutor-v1"), "tutor-v2": version("tutor-v2")}
    versions["tutor-v1"]["spec"]["lineage"]["method"] = other
    versions["tutor-v2"]["spec"]["lineage"]["method"] = method
    life.upstream = Upstream(models={"tutor": model("champion")}, versions=versions)
    assert life.tick().create == ()
    assert conditions(life.status)["ModelReady"] == "False/WaitingForModelVersion"
    life.upstream = Upstream(models={"tutor": model("canary", "champion")}, versions=versions)
    (plan,) = plans(life.tick())
    assert plan["comparedWith"] == "tutor-v2"


@pytest.mark.parametrize("models", [{}, {"tutor": model("canary")}])
def test_without_a_version_in_use_a_job_starts_all_the_same(new_life: Any, models: Any) -> None:
    life = new_life(**AGAINST)
    life.upstream = Upstream(models=models)
    (plan,) = plans(life.tick())
    assert (plan["comparedWith"], plan.get("models", {})) == ("", {})
