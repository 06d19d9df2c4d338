"""Deleted uids: the last ones are known, in memory that does not grow."""

import pytest

from hone_operator.objects import sharing
from hone_operator.objects.cache import MANY, Cache
from hone_operator.objects.tombstones import Tombstones

pytestmark = pytest.mark.pure


def test_the_last_ones_are_known_and_the_first_forgotten():
    gone = Tombstones(100)
    for number in range(1000):
        gone.add(f"uid-{number}")
        assert all(f"uid-{n}" in gone for n in range(max(0, number - 99), number + 1))
        assert f"uid-{number + 1}" not in gone
    assert sum(f"uid-{n}" in gone for n in range(1000)) <= 200


def test_one_that_is_added_again_takes_no_other_place():
    gone = Tombstones(2)
    for _ in range(10):
        gone.add("again")
    gone.add("other")
    assert "again" in gone
    assert "other" in gone


def test_uids_whose_hashes_want_the_same_place_are_told_apart(monkeypatch):
    monkeypatch.setattr("hone_operator.objects.tombstones._key", lambda uid: 8 * int(uid) + 3)
    gone = Tombstones(4)
    for uid in ("1", "2", "3"):
        gone.add(uid)
    assert [str(n) in gone for n in range(1, 5)] == [True, True, True, False]


def test_no_string_of_a_deleted_object_is_kept():
    cache, name = Cache(), "word of a test "
    bodies = []
    for n in range(MANY):
        metadata = {"namespace": "team", "name": f"job-{n}", "uid": f"uid-{n}", "resourceVersion": "1"}
        bodies.append({"metadata": metadata, "spec": {}, "status": {"startTime": f"{name}{n}"}})
    for body in bodies:
        assert cache.put("Job", body)
    assert [text for text in sharing._strings if text.startswith(name)]
    for body in bodies:
        cache.remove("Job", body)
        assert not cache.put("Job", body)
    assert not [text for text in sharing._strings if text.startswith(name)]
