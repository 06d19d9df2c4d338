"""What lives long is kept out of garbage collections, and cycles are still found."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from hone_operator.process import garbage

pytestmark = pytest.mark.pure


class Node:
    """Refers to itself: only a collection frees it."""

    def __init__(self) -> None:
        self.self = self


@pytest.fixture
def collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_is_there_is_set_aside_and_a_cycle_is_freed_at_the_next_time(collector: None) -> None:
    cache = [{"spec": {"n": [n]}} for n in range(1000)]
    node = Node()
    gone = weakref.ref(node)
    garbage.set_aside()
    assert not any(one is cache for one in gc.get_objects()), "collections do not walk the cache"
    del node
    gc.collect()
    assert gone() is not None, "it was set aside while it was in use"
    garbage.set_aside()
    assert gone() is None
