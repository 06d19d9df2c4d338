"""Deleted uids: the last ones are known, in memory that does not grow."""

import pytest

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


def test_uids_whose_hashes_want_the_same_place_are_distinguished(monkeypatch):
    monkeypatch.setattr("hone_operator.objects.tombstones._key", lambda uid: 8 * int(uid) + 3)
    gone = Tombstones(4)
    for uid in ("1", "2", "3"):
        gone.add(uid)
    assert [str(n) in gone for n in range(1, 5)] == [True, True, True, False]
