"""Version numbers: one a run, never used twice."""

from __future__ import annotations

import json

import pytest

from hone_api.kinds.modelversion import MAX_VERSION
from hone_operator.desired.version.model_version import REMEMBERED, allocate, last_of

pytestmark = pytest.mark.pure


def run(uid: str) -> dict:
    return {"metadata": {"uid": uid, "namespace": "team"}}


def written(ledger: dict, version: str = "5") -> dict:
    """The ledger as it is read back."""
    return {**ledger, "metadata": {**ledger["metadata"], "resourceVersion": version, "uid": "ledger-uid"}}


def existing(number: int, uid: str, model: str = "tutor") -> dict:
    return {"spec": {"modelName": model, "version": number, "lineage": {"job": {"uid": uid}}}}


def test_the_first_number_is_one_and_the_ledger_is_made():
    version = allocate(run("a"), "tutor", None, [])
    assert version.number == 1
    assert "resourceVersion" not in version.ledger["metadata"]


def test_the_next_run_gets_the_next_number_guarded_by_what_was_read():
    ledger = written(allocate(run("a"), "tutor", None, []).ledger)
    version = allocate(run("b"), "tutor", ledger, [])
    assert version.number == 2
    assert version.ledger["metadata"]["resourceVersion"] == "5"
    assert version.ledger["metadata"]["uid"] == "ledger-uid"


def test_a_run_that_comes_again_keeps_its_number_and_writes_nothing():
    ledger = written(allocate(run("a"), "tutor", None, []).ledger)
    ledger = written(allocate(run("b"), "tutor", ledger, []).ledger)
    version = allocate(run("a"), "tutor", ledger, [existing(2, "b")])
    assert (version.number, version.ledger) == (1, None)


def test_a_number_is_not_reused_when_its_model_version_was_deleted():
    ledger = written(allocate(run("a"), "tutor", None, []).ledger)
    assert allocate(run("b"), "tutor", ledger, []).number == 2


def test_a_lost_ledger_is_rebuilt_from_the_model_versions():
    version = allocate(run("b"), "tutor", None, [existing(1, "x"), existing(4, "y"), existing(9, "z", "other")])
    assert version.number == 5


def test_with_a_lost_ledger_a_run_finds_its_own_model_version():
    assert allocate(run("b"), "tutor", None, [], last=last_of({"status": {"lastVersion": 7}})).number == 8
    assert allocate(run("b"), "tutor", None, [existing(9, "x")], last=last_of(None)).number == 10
    version = allocate(run("a"), "tutor", None, [existing(3, "a")])
    assert (version.number, version.ledger) == (3, None)


def test_a_number_that_somebody_took_by_hand_is_left_to_them():
    ledger = written(allocate(run("a"), "tutor", None, []).ledger)
    assert allocate(run("a"), "tutor", ledger, [existing(1, "somebody")]).number == 2


def test_nobody_ends_the_numbers_of_a_model_by_taking_the_largest_one():
    ledger = written(allocate(run("a"), "tutor", None, []).ledger)
    taken = [existing(1, "a"), existing(MAX_VERSION, "somebody")]
    assert allocate(run("b"), "tutor", ledger, taken, last=MAX_VERSION).number == 2


def test_models_count_apart():
    ledger = written(allocate(run("a"), "tutor", None, []).ledger)
    version = allocate(run("b"), "writer", ledger, [])
    assert version.number == 1
    assert set(version.ledger["data"]) == {"tutor", "writer"}


def test_the_ledger_is_bounded():
    ledger = None
    for n in range(REMEMBERED + 10):
        ledger = written(allocate(run(f"uid-{n}"), "tutor", ledger, []).ledger)
    entry = json.loads(ledger["data"]["tutor"])
    assert (entry["last"], len(entry["runs"])) == (REMEMBERED + 10, REMEMBERED)


@pytest.mark.parametrize(
    "entry",
    [
        "no JSON",
        "[" * 9000,
        "[]",
        "7",
        '{"last": "many"}',
        '{"last": 1000000}',
        '{"last": -5}',
        '{"last": 1, "runs": {"a": 0}}',
        '{"last": 1, "runs": {"a": "x"}}',
        '{"last": 1, "runs": [1]}',
    ],
)
def test_an_entry_that_somebody_else_wrote_is_like_a_lost_one(entry: str) -> None:
    ledger = written(allocate(run("a"), "tutor", None, []).ledger)
    ledger["data"] = {"tutor": entry, "other": "kept"}
    version = allocate(run("a"), "tutor", ledger, [existing(4, "y")])
    assert version.number == 5
    assert version.ledger["data"] == {"tutor": '{"last": 5, "runs": {"a": 5}}', "other": "kept"}
