"""Objects by a key that one or many of them have."""

import pytest

from hone_operator.objects.index import KeyIndex

pytestmark = pytest.mark.pure

ONE, TWO, THREE = ("team", "one"), ("team", "two"), ("team", "three")


def test_objects_come_in_the_order_in_which_they_were_added() -> None:
    index = KeyIndex()
    for ref in (TWO, ONE, TWO, THREE):
        index.add("key", ref)
    assert index.refs("key") == [TWO, ONE, THREE]
    assert index.refs("other") == []


def test_a_key_without_objects_is_forgotten() -> None:
    index = KeyIndex()
    index.add("alone", ONE)
    for ref in (ONE, TWO):
        index.add("shared", ref)
    index.discard("alone", TWO)
    assert index.refs("alone") == [ONE], "another object than the one of this key"
    index.discard("alone", ONE)
    index.discard("shared", ONE)
    assert index.refs("shared") == [TWO]
    index.discard("shared", TWO)
    index.discard("shared", TWO)
    assert index == {}
