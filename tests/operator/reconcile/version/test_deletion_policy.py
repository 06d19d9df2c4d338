"""Who makes a model says what happens to its files when its ModelVersion is deleted."""

from __future__ import annotations

from typing import Any

import pytest
from support.cluster.platforms import platform_with

from hone_api.blocks.imports import ModelImport
from hone_api.contract.report import ImportResult
from hone_api.kinds.model import VersionRetention
from hone_api.kinds.plan_record import values_of
from hone_operator.desired.model import retrain
from hone_operator.desired.model.importing import imported_version, importing, key_of
from hone_operator.reconcile.model import retention

pytestmark = pytest.mark.pure
DIGEST = "sha256:" + "1" * 64
MODEL = {"metadata": {"name": "tutor", "namespace": "team", "uid": "m"}, "kind": "Model"}
POLICIES = [(None, "Retain"), ("Retain", "Retain"), ("Delete", "Delete")]


def saying(policy: str | None, **fields: Any) -> dict[str, Any]:
    return {**fields, **({"deletionPolicy": policy} if policy else {})}


@pytest.mark.parametrize(("policy", "kept"), POLICIES)
def test_of_a_job(world: Any, new_life: Any, policy: str | None, kept: str) -> None:
    life = new_life()
    life.tick()
    life.job["spec"]["output"] = saying(policy, modelName="tutor")
    life.ends("Complete", world.dead(0, outcome=world.result()))
    (version,) = life.tick(70).record
    assert version["spec"]["deletionPolicy"] == kept
    assert "deletionPolicy" not in values_of(version["spec"]["lineage"]).get("output", {})


@pytest.mark.parametrize(("policy", "kept"), POLICIES)
def test_of_an_import(policy: str | None, kept: str) -> None:
    artifact = {"format": "Full", "uri": "full", "digest": DIGEST, "sizeBytes": 10}
    result = ImportResult.model_validate({"artifact": artifact, "digest": DIGEST})
    entry = ModelImport.model_validate(saying(policy, uri="pvc://files/model"))
    version = imported_version(MODEL, entry, result, 1, "2026-01-02T03:04:05Z", platform_with("trainer"))
    assert version["spec"]["deletionPolicy"] == kept


def test_an_import_is_the_same_whatever_happens_to_its_files() -> None:
    """Nothing is imported again because the policy of its entry was changed."""
    entries = [ModelImport.model_validate(saying(policy, uri="pvc://files/model")) for policy, _ in POLICIES]
    assert len({key_of("tutor", entry) for entry in entries}) == 1
    jobs = [importing(MODEL, entry, 1, platform_with("trainer")) for entry in entries]
    assert jobs[0] == jobs[1] == jobs[2], "and its pod does not know"


def test_what_is_trained_again_follows_the_job_it_repeats() -> None:
    template = {"spec": {"output": saying("Delete", modelName="tutor"), "suspend": True}}
    assert retrain.job(MODEL, "tutor-r1", template)["spec"]["output"]["deletionPolicy"] == "Delete"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (None, "Its files stay: its deletionPolicy is Retain."),
        ("Delete", "Its files are removed later: its deletionPolicy is Delete."),
    ],
)
def test_the_event_says_what_happens_to_the_files(policy: str | None, words: str) -> None:
    body = {"metadata": {"name": "tutor-v1"}, "spec": saying(policy)}
    assert retention.words_of(body, VersionRetention(keep=2)) == (
        f"ModelVersion tutor-v1 is deleted: spec.retention keeps the newest 2. {words}"
    )
