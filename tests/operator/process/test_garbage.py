"""What lives long is kept out of garbage collections, and cycles are still found."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from hone_operator.objects import sharing
from hone_operator.objects.cache import Cache
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


def test_it_pays_to_collect_when_half_of_many_objects_are_gone() -> None:
    shrinking, many = garbage.Shrinking(), garbage.MANY
    counts = [many - 1, 0, 4 * many, 2 * many + 1, 2 * many, 2 * many, many, many // 2, 0]
    assert [shrinking.now(count) for count in counts] == [False] * 4 + [True, False, True, True, False]


def test_what_deleted_objects_leave_is_collected_long_before_its_turn(
    collector: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "LOOK_SECONDS", 0.01)
    cache, word = Cache(), "word of a test "
    bodies = []
    for n in range(garbage.MANY):
        metadata = {"namespace": "team", "name": f"job-{n}", "uid": f"uid-{n}", "resourceVersion": "1"}
        bodies.append({"metadata": metadata, "spec": {}, "status": {"startTime": f"{word}{n}"}})

    async def life() -> None:
        keeping = asyncio.create_task(garbage.keep_aside(cache, sharing.forget_strings, 3600.0))
        await asyncio.sleep(0)
        for body in bodies:
            assert cache.put("Job", body)
        node, gone = Node(), asyncio.Event()
        weakref.finalize(node, gone.set)
        await asyncio.sleep(0.05)
        assert [text for text in sharing._strings if text.startswith(word)]
        for body in bodies:
            cache.remove("Job", body)
            assert not cache.put("Job", body)
        del node
        await gone.wait()
        keeping.cancel()

    asyncio.run(life())
    assert not [text for text in sharing._strings if text.startswith(word)]
