"""Contents of Datasets: who refers to them, and when one may go."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hone_api.plan import SweepPlan
from hone_operator.reconcile.store import store_gc

pytestmark = pytest.mark.pure

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
STORE = "hone-store"


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def held(*letters: str) -> set[str]:
    return {letter * 64 for letter in letters}


def body(**fields: Any) -> dict[str, Any]:
    return {"metadata": {}, "spec": {}, **fields}


RESOLVED = {"datasetDigests": {"rows": digest("c"), "general": digest("d")}}
OBJECTS = [
    ("Dataset", body(status={"digest": digest("a")})),
    ("Dataset", body(status={"phase": "Failed"})),
    ("Dataset", body()),
    ("FineTuneJob", body(status={"resolved": {"datasetDigests": {"rows": digest("b")}}})),
    ("FineTuneJob", body(status={"resolved": {}})),
    ("FineTuneJob", body(status=None)),
    ("Job", body(metadata={"annotations": {"hone.dev/resolved": json.dumps(RESOLVED)}})),
    ("Job", body(metadata={"annotations": None})),
    ("ModelVersion", body(spec={"lineage": {"datasets": [{"name": "rows", "digest": digest("e")}]}})),
    ("ModelVersion", body()),
]


def test_datasets_runs_their_jobs_and_models_refer_to_contents():
    assert store_gc.referred_keys(OBJECTS, STORE) == held(*"abcde")
    assert store_gc.referred_keys([], STORE) == set()


FINISHED = {"conditions": [{"type": "Succeeded", "status": "True"}]}
UNTIL_SUCCEEDED = {"checkpoints": {"retain": "UntilSucceeded"}}
COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}
OWNED = {"ownerReferences": [{"kind": "FineTuneJob", "uid": "u"}]}
LABELLED = {"labels": {"hone.dev/run": "u"}}


@pytest.mark.parametrize(
    ("kind", "fields", "needed"),
    [
        ("FineTuneJob", {"metadata": {"uid": "u"}}, True),
        ("FineTuneJob", {"metadata": {"uid": "u"}, "status": FINISHED}, True),
        ("FineTuneJob", {"metadata": {"uid": "u"}, "spec": UNTIL_SUCCEEDED}, True),
        ("FineTuneJob", {"metadata": {"uid": "u"}, "spec": UNTIL_SUCCEEDED, "status": FINISHED}, False),
        ("Job", {"metadata": OWNED}, True),
        ("Job", {"metadata": LABELLED}, True),
        ("Job", {"metadata": LABELLED, "status": COMPLETE}, False),
        ("Pod", {"metadata": LABELLED, "status": {"phase": "Pending"}}, True),
        ("Pod", {"metadata": LABELLED, "status": {"phase": "Running"}}, True),
        ("Pod", {"metadata": LABELLED, "status": {"phase": "Failed"}}, False),
        ("Pod", {"metadata": {}, "status": {"phase": "Running"}}, False),
        ("Dataset", {"metadata": {"uid": "u"}}, False),
    ],
)
def test_a_run_is_needed_by_its_job_and_by_whatever_still_writes_it(kind: str, fields: Any, needed: bool) -> None:
    objects = [(kind, body(**fields))]
    assert store_gc.referred_keys(objects, STORE) == ({"run.u"} if needed else set())
    assert store_gc.runs_that_stay(objects, STORE) == (["u"] if needed or kind == "FineTuneJob" else [])


def test_rows_are_being_made_as_long_as_a_job_or_its_pod_has_not_ended():
    of_job = {"ownerReferences": [{"kind": "Job", "name": "deleted"}]}
    objects = [
        ("Job", body(metadata={"name": "runs"})),
        ("Job", body(metadata={"name": "done"}, status=COMPLETE)),
        ("Job", body(metadata={"name": "failed"}, status={"conditions": [{"type": "Failed", "status": "True"}]})),
        ("Pod", body(metadata=of_job, status={"phase": "Running"})),
        ("Pod", body(metadata={"ownerReferences": [{"kind": "Job", "name": "done"}]}, status={"phase": "Succeeded"})),
        ("Pod", body(metadata={"ownerReferences": [{"kind": "ReplicaSet", "name": "x"}]}, status={})),
    ]
    assert store_gc.being_made(objects) == ["deleted", "runs"]


def test_a_run_that_was_swept_is_forgotten():
    known = {"run.gone": "2026-01-02T12:00:00Z", "run.done": "2026-01-02T12:00:00Z", "run.there": "", "run.late": ""}
    done = SweepPlan(store="/store", remove=[], jobs=["there", "done"], checkpoints=["done"], as_of=0)
    assert store_gc.without(known, done) == {"run.there": "", "run.late": ""}
    assert store_gc.without(known, done.model_copy(update={"jobs": None, "checkpoints": []})) == known


def test_what_is_not_referred_to_any_more_waits_and_goes():
    known = store_gc.update_ledger({}, held("a", "b"), NOW)
    assert known == dict.fromkeys(held("a", "b"), "")
    assert store_gc.next_removal(known, HOUR) is None
    known = store_gc.update_ledger(known, held("b", "c"), NOW)
    assert known == {"a" * 64: "2026-01-02T12:00:00Z", "b" * 64: "", "c" * 64: ""}
    assert store_gc.update_ledger(known, held("b", "c"), NOW + HOUR) == known, "since then, not since the last look"
    assert store_gc.next_removal(known, HOUR) == NOW + HOUR
    assert store_gc.idle_contents(known, HOUR, NOW + HOUR - timedelta(seconds=1)) == []
    assert store_gc.idle_contents(known, HOUR, NOW + HOUR) == ["a" * 64]


def test_what_is_referred_to_again_stays():
    known = store_gc.update_ledger({"a" * 64: "2026-01-02T10:00:00Z"}, held("a"), NOW)
    assert known == {"a" * 64: ""}
    done = SweepPlan(store="/store", remove=[digest("a"), digest("b")], as_of=0)
    assert store_gc.without(known, done) == known
    assert store_gc.without({"a" * 64: "2026-01-02T10:00:00Z", "c" * 64: "2026-01-02T10:00:00Z"}, done) == {
        "c" * 64: "2026-01-02T10:00:00Z"
    }


def test_one_job_removes_so_many_at_most():
    many = {f"{n:064x}": "2026-01-01T00:00:00Z" for n in range(store_gc.MOST + 9)}
    assert len(store_gc.idle_contents(many, HOUR, NOW)) == store_gc.MOST


ROWS = "f" * 64


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("FineTuneJob", {"spec": {"model": {"uri": "pvc://hone-store/runs/old/checkpoints/step-000400"}}}),
        ("FineTuneJob", {"status": {"resolved": {"modelUri": "pvc://hone-store/runs/old/checkpoints/step-000400"}}}),
        ("FineTuneJob", {"status": {"resolved": {"modelVersions": [{"adapterUri": "pvc://hone-store/runs/old"}]}}}),
        ("ModelVersion", {"spec": {"artifacts": [{"uri": "pvc://hone-store/runs/old/export"}]}}),
        ("ModelVersion", {"spec": {"lineage": {"baseModel": {"location": "pvc://hone-store/./runs/old/x"}}}}),
        (
            "ModelVersion",
            {"spec": {"lineage": {"ancestors": [{"baseModel": {"location": "pvc://hone-store/runs/old"}}]}}},
        ),
        ("Dataset", {"spec": {"source": {"uri": "pvc://hone-store/runs/old/samples.jsonl"}}}),
    ],
)
def test_a_run_stays_while_anything_names_a_folder_of_it(kind: str, fields: Any) -> None:
    """A run that begins with a checkpoint of another, whose FineTuneJob is deleted; a model that was written there."""
    objects = [(kind, body(**fields)), ("Dataset", body(spec={"source": {"uri": "pvc://hone-store/runs"}}))]
    assert store_gc.referred_keys(objects, STORE) == {"run.old"}
    assert store_gc.runs_that_stay(objects, STORE) == ["old"]
    assert store_gc.runs_that_stay(objects, "another-claim") == []


def test_rows_stay_while_anything_names_their_folder() -> None:
    objects = [("Dataset", body(spec={"source": {"uri": f"pvc://hone-store/datasets/{ROWS}/train.jsonl"}}))]
    assert store_gc.referred_keys(objects, STORE) == {ROWS}


@pytest.mark.attack("plans")
@pytest.mark.parametrize(
    "uri",
    ["pvc://hone-store/runs/../models/x", "pvc://hone-store//runs/x", "pvc://hone-store/", "pvc://hone-store/runs/\0"],
)
def test_an_address_that_leaves_the_store_names_nothing(uri: str) -> None:
    assert store_gc.referred_keys([("FineTuneJob", body(spec={"model": {"uri": uri}}))], STORE) == set()


@pytest.mark.attack("plans")
@pytest.mark.parametrize(
    "resolved",
    [
        "[]",
        "{",
        '{"datasetDigests": "x"}',
        '{"datasetDigests": {"rows": 1}}',
        "[" * 3000,
        '{"datasetDigests": null}',
        "1",
    ],
)
def test_a_forged_annotation_stops_no_sweep(resolved: str) -> None:
    objects = [("Job", body(metadata={"annotations": {"hone.dev/resolved": resolved}}))]
    assert store_gc.referred_keys(objects, STORE) == set()


@pytest.mark.attack("plans")
@pytest.mark.parametrize(
    ("content", "since"),
    [
        ("x", "2026-01-02T10:00:00Z"),
        ("A" * 64, "2026-01-02T10:00:00Z"),
        ("run.", "2026-01-02T10:00:00Z"),
        ("a" * 64, "soon"),
        ("a" * 64, "2026-01-02"),
        ("a" * 64, "9999-12-31T23:59:59Z"),
        ("a" * 64, "0000-01-01T00:00:00Z"),
        ("a" * 64, "[" * 3000),
    ],
)
def test_a_ledger_that_somebody_edited_removes_nothing_early_and_stops_nothing(content: str, since: str) -> None:
    known = store_gc.update_ledger({content: since}, set(), NOW)
    assert known == ({content: "2026-01-02T12:00:00Z"} if content == "a" * 64 else {})
    assert store_gc.next_removal(known, HOUR) == (NOW + HOUR if known else None)


@pytest.mark.attack("plans")
@pytest.mark.parametrize("uid", ["a b", "../models", "ä", "x" * 300])
def test_the_ledger_has_only_keys_that_a_configmap_takes(uid: str) -> None:
    """A uid in an owner reference may be any text; the run stays, and the ledger can still be written."""
    objects = [("Job", body(metadata={"ownerReferences": [{"kind": "FineTuneJob", "uid": uid}]}))]
    assert store_gc.update_ledger({}, store_gc.referred_keys(objects, STORE), NOW) == {}
    assert store_gc.runs_that_stay(objects, STORE) == [uid]
