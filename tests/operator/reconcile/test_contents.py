"""Contents of Datasets: who refers to them, and when one may go."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hone_api.plan import SweepPlan
from hone_operator.reconcile import contents

pytestmark = pytest.mark.pure

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


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
    assert contents.referred(OBJECTS) == held(*"abcde")
    assert contents.referred([]) == set()


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
    assert contents.referred(objects) == ({"run.u"} if needed else set())
    assert contents.runs_that_stay(objects) == (["u"] if needed or kind == "FineTuneJob" else [])


def test_a_run_that_was_swept_is_forgotten():
    known = {"run.gone": "2026-01-02T12:00:00Z", "run.done": "2026-01-02T12:00:00Z", "run.there": "", "run.late": ""}
    done = SweepPlan(store="/store", remove=[], jobs=["there", "done"], checkpoints=["done"], as_of=0)
    assert contents.without(known, done) == {"run.there": "", "run.late": ""}
    assert contents.without(known, done.model_copy(update={"jobs": None, "checkpoints": []})) == known


def test_what_is_not_referred_to_any_more_waits_and_goes():
    known = contents.updated({}, held("a", "b"), NOW)
    assert known == dict.fromkeys(held("a", "b"), "")
    assert contents.due(known, HOUR) is None
    known = contents.updated(known, held("b", "c"), NOW)
    assert known == {"a" * 64: "2026-01-02T12:00:00Z", "b" * 64: "", "c" * 64: ""}
    assert contents.updated(known, held("b", "c"), NOW + HOUR) == known, "since then, not since the last look"
    assert contents.due(known, HOUR) == NOW + HOUR
    assert contents.idle(known, HOUR, NOW + HOUR - timedelta(seconds=1)) == []
    assert contents.idle(known, HOUR, NOW + HOUR) == ["a" * 64]


def test_what_is_referred_to_again_stays():
    known = contents.updated({"a" * 64: "2026-01-02T10:00:00Z"}, held("a"), NOW)
    assert known == {"a" * 64: ""}
    done = SweepPlan(store="/store", remove=[digest("a"), digest("b")], as_of=0)
    assert contents.without(known, done) == known
    assert contents.without({"a" * 64: "2026-01-02T10:00:00Z", "c" * 64: "2026-01-02T10:00:00Z"}, done) == {
        "c" * 64: "2026-01-02T10:00:00Z"
    }


def test_one_job_removes_so_many_at_most():
    many = {f"{n:064x}": "2026-01-01T00:00:00Z" for n in range(contents.MOST + 9)}
    assert len(contents.idle(many, HOUR, NOW)) == contents.MOST
