"""Models in a store: which go with their ModelVersion, and which exports stay."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hone_api.plan import SweepPlan
from hone_operator.reconcile.store import models, store_gc

pytestmark = pytest.mark.pure

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
THEN = "2026-01-02T12:00:00Z"
STORE = "hone-store"
KEY = "model.u.attempt-1"
URI = f"pvc://{STORE}/models/u/attempt-1"


def version(policy: str | None, *uris: str) -> tuple[str, dict[str, Any]]:
    spec: dict[str, Any] = {"artifacts": [{"uri": uri} for uri in uris or (f"{URI}/adapter", f"{URI}/merged")]}
    return "ModelVersion", {"metadata": {}, "spec": spec | ({"deletionPolicy": policy} if policy else {})}


def looked(ledger: dict[str, str], *objects: Any, departed: dict[str, bool] | None = None) -> dict[str, str]:
    """The ledger after a look at these objects."""
    claims = (departed or {}) | models.claimed_folders(objects, STORE)
    return store_gc.update_ledger(ledger, store_gc.referred_keys(objects, STORE), NOW, claims)


@pytest.mark.parametrize("policy", ["Retain", None])
def test_a_retained_model_is_never_in_the_ledger(policy: str | None) -> None:
    assert looked({}, version(policy)) == {}
    assert looked({}) == {}, "also after its ModelVersion is gone"
    assert looked({KEY: ""}, version(policy)) == {}, "nor when it was to go before"


def test_a_model_goes_some_time_after_its_model_version() -> None:
    known = looked({}, version("Delete"))
    assert known == {KEY: ""}
    gone = looked(known)
    assert gone == {KEY: THEN}
    assert store_gc.idle_contents(gone, timedelta(hours=1), NOW + timedelta(minutes=59)) == []
    assert store_gc.idle_contents(gone, timedelta(hours=1), NOW + timedelta(hours=1)) == [KEY]
    assert looked(gone, version("Delete")) == {KEY: ""}, "restored from a backup"
    done = SweepPlan(store="/store", remove=[], models=["u/attempt-1"], as_of=0)
    assert store_gc.without(gone, done) == {}
    assert store_gc.without(known, done) == known


def test_what_a_model_version_said_when_it_went_counts() -> None:
    """Its policy was changed, and it was deleted, before the ledger was looked at."""
    assert looked({}, departed={KEY: True}) == {KEY: THEN}
    assert looked({KEY: ""}, departed={KEY: False}) == {}
    assert looked({KEY: ""}, version("Delete"), departed={KEY: False}) == {KEY: ""}, "it was made again"


def test_one_model_version_that_retains_keeps_the_folder_of_two() -> None:
    assert looked({}, version("Delete"), version("Retain")) == {}
    assert looked({}, version("Retain"), version("Delete")) == {}
    known = looked({KEY: THEN}, version("Retain"))
    assert known == {}
    assert looked(known) == {}, "it stays when the other one is gone too"


RESOLVED = {"modelVersion": {"name": "tutor-v1", "uri": f"{URI}/merged"}}
ENDED = {"conditions": [{"type": "Complete", "status": "True"}]}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        version("Retain", f"pvc://{STORE}/models/other/attempt-1/adapter", f"{URI}/gguf"),
        ("ModelVersion", {"metadata": {}, "spec": {"lineage": {"baseModel": {"location": f"{URI}/merged"}}}}),
        ("FineTuneJob", {"metadata": {}, "spec": {"model": {"uri": f"{URI}/merged"}}}),
        ("FineTuneJob", {"metadata": {}, "spec": {}, "status": {"resolved": RESOLVED}}),
        ("Job", {"metadata": {"annotations": {"hone.dev/resolved": json.dumps(RESOLVED)}}}),
    ],
)
def test_a_model_stays_while_anything_names_its_folder(kind: str, body: dict[str, Any]) -> None:
    objects = [(kind, body)]
    assert KEY in store_gc.referred_keys(objects, STORE)
    assert "u/attempt-1" in models.named_models(objects, STORE)
    assert models.named_models(objects, "another-claim") == set()
    if kind != "ModelVersion" or "artifacts" not in body["spec"]:
        assert looked({KEY: THEN}, *objects) == {KEY: ""}


def test_an_attempt_that_has_ended_names_nothing() -> None:
    annotations = {"hone.dev/resolved": json.dumps(RESOLVED)}
    assert models.named_models([("Job", {"metadata": {"annotations": annotations}, "status": ENDED})], STORE) == set()


@pytest.mark.parametrize(
    "uri",
    [
        "pvc://another-claim/models/u/attempt-1/adapter",
        f"pvc://{STORE}/exports/mine",
        f"pvc://{STORE}/models/u",
        f"pvc://{STORE}/models/u.v/attempt-1",
        f"pvc://{STORE}/models/../runs/u",
        f"pvc://{STORE}/models/{'x' * 200}/attempt-1",
        "hf://owner/name",
    ],
)
def test_what_no_run_of_ours_exported_stays(uri: str) -> None:
    assert looked({}, version("Delete", uri)) == {}


FINISHED = {"conditions": [{"type": "Finished", "status": "True"}]}
LABELLED = {"labels": {"hone.dev/run": "u"}}


@pytest.mark.parametrize(
    ("kind", "body", "over"),
    [
        ("FineTuneJob", {"metadata": {"uid": "u"}}, False),
        ("FineTuneJob", {"metadata": {"uid": "u"}, "status": FINISHED}, True),
        ("Job", {"metadata": LABELLED}, False),
        ("Job", {"metadata": LABELLED, "status": ENDED}, True),
        ("Pod", {"metadata": LABELLED, "status": {"phase": "Running"}}, False),
        ("Pod", {"metadata": LABELLED, "status": {"phase": "Failed"}}, True),
        ("Dataset", {"metadata": {"uid": "u"}}, True),
    ],
)
def test_a_run_is_over_when_nothing_of_it_can_export_any_more(kind: str, body: dict[str, Any], over: bool) -> None:
    assert models.not_over([(kind, body)]) == (set() if over else {"u"})


@pytest.mark.attack("plans")
@pytest.mark.parametrize(
    "key", ["model.", "model.u", "model.../x", "model.u.v.w", "model.u/attempt-1.x", "model.a b.c"]
)
def test_a_ledger_that_somebody_edited_names_no_other_folder(key: str) -> None:
    assert looked({key: "2020-01-01T00:00:00Z"}) == {}


@pytest.mark.attack("plans")
def test_a_ledger_that_somebody_edited_removes_no_model_of_a_model_version() -> None:
    assert looked({KEY: "2020-01-01T00:00:00Z"}, version("Delete")) == {KEY: ""}
    assert looked({KEY: "2020-01-01T00:00:00Z"}, version("Retain")) == {}
