"""Which ModelVersions spec.retention deletes, and which are needed."""

from __future__ import annotations

import pytest
from support.lives.named_model import Named, deleted, version

from hone_operator.reconcile.model.retention import needed_versions

pytestmark = pytest.mark.pure


def test_without_retention_nothing_is_deleted() -> None:
    assert deleted(Named().tick(*(version(n) for n in range(1, 9)))) == []


def test_retention_keeps_the_newest_and_what_somebody_chose_or_uses() -> None:
    model = Named(production=1)
    model.body["spec"]["retention"] = {"keep": 2}
    model.in_use = {"tutor-v3"}
    versions = [version(n) for n in (1, 2, 3, 6, 7, 9)]
    versions += [version(4, approval="Approved"), version(5, ready="False"), version(8, ready="False", stalled=True)]
    outcome = model.tick(*versions)
    assert deleted(outcome) == ["tutor-v2", "tutor-v6"], "7 is the second of those that can be used"
    files = "Its files stay: its deletionPolicy is Retain."
    assert [e.message for e in outcome.events if e.reason == "VersionExpired"] == [
        f"ModelVersion {name} is deleted: spec.retention keeps the newest 2. {files}" for name in deleted(outcome)
    ]


def test_versions_that_nobody_can_use_push_out_none_that_can() -> None:
    """Each job on new rows may make a version that a gate rejects: the last good one is not lost to them."""
    model = Named()
    model.body["spec"]["retention"] = {"keep": 1}
    versions = [version(1), version(2), *(version(n, approval="Rejected") for n in (3, 4, 5))]
    assert deleted(model.tick(*versions)) == ["tutor-v1", "tutor-v3", "tutor-v4"]


@pytest.mark.parametrize("rejected", [(), (2,)])
def test_the_last_good_version_stays_until_its_successor_is_verified(rejected: tuple[int, ...]) -> None:
    model = Named()
    model.body["spec"]["retention"] = {"keep": 1}
    versions = [version(1), *(version(n, approval="Rejected") for n in rejected)]
    going = deleted(model.tick(*versions, version(3, ready="False")))
    assert going == [f"tutor-v{n}" for n in rejected]
    assert "tutor-v1" in deleted(model.tick(*versions, version(3)))


def test_a_version_that_is_being_deleted_does_not_count_as_kept() -> None:
    model = Named()
    model.body["spec"]["retention"] = {"keep": 1}
    goes = version(2)
    goes["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert deleted(model.tick(version(1), goes)) == []


def test_what_an_alias_points_to_until_its_new_version_is_ready_stays() -> None:
    model = Named(production=1)
    model.tick(version(1))
    model.pin(production=5)
    model.body["spec"]["retention"] = {"keep": 1}
    outcome = model.tick(version(1), version(2), version(3), version(5, ready="False"))
    assert (model.targets(), deleted(outcome)) == ({"production": "tutor-v1"}, ["tutor-v2"])


def test_what_others_were_made_from_or_unfinished_work_names_is_needed() -> None:
    child = version(2)
    child["spec"]["lineage"] = {"baseModel": {"modelVersion": "a-v1"}, "ancestors": [{"modelVersion": "b-v1"}]}
    model = {"uri": "models://tutor@champion"}
    jobs = [
        {"metadata": {"name": "chain"}, "spec": {"model": {"fineTuneJob": "first"}}},
        {"metadata": {"name": "first"}, "spec": {"model": {"modelVersion": "over"}}, "status": FINISHED},
        {"metadata": {"name": "alias"}, "spec": {"model": model}, "status": {"baseModelVersion": "d-v1"}},
        {"metadata": {"name": "reads"}, "spec": {"model": {}, "distillation": {"teacherModelVersion": "e-v1"}}},
        {
            "metadata": {"name": "runs"},
            "spec": {"model": {}},
            "status": {"resolved": {"modelVersion": {"name": "f-v1"}}},
        },
    ]
    rows = {"spec": {"curation": {"scores": [{"modelVersion": "g-v1"}]}}}
    assert needed_versions([child], jobs, [rows]) == {f"{letter}-v1" for letter in "abcdefg"}


FINISHED = {"modelVersionName": "c-v1", "conditions": [{"type": "Finished", "status": "True"}]}
