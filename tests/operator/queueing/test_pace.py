"""Work whose cost grows with a namespace has a bounded part of the time."""

from datetime import UTC, datetime, timedelta

import pytest
from support.cluster.memory_cluster import MemoryCluster
from support.cluster.platforms import platform_with

from hone_operator.controllers import Controllers
from hone_operator.objects.cache import Cache
from hone_operator.queueing.pace import LONGEST_PAUSE, MANY, Pace
from hone_operator.queueing.routing import contents_of

pytestmark = pytest.mark.pure


def test_the_pause_grows_with_the_run_up_to_a_minute():
    pace = Pace()
    assert pace.left("team", 100.0) == 0
    pace.ran("team", 100.0, 100.1)
    assert pace.left("team", 100.1) == pytest.approx(2.0)
    assert pace.left("team", 102.2) == 0
    assert pace.left("other", 100.1) == 0
    pace.ran("team", 200.0, 230.0)
    assert pace.left("team", 230.0) == LONGEST_PAUSE
    assert pace.left("team", 130.0) == 0, "the clock was set back"


def test_keys_whose_pause_is_over_are_forgotten():
    pace = Pace()
    for n in range(3 * MANY):
        pace.ran(n, float(n), n + 0.001)
    assert len(pace._not_before) <= MANY


async def test_a_look_after_contents_that_took_long_is_not_repeated_at_once():
    clock = [datetime(2026, 1, 1, tzinfo=UTC)]

    class Slow(MemoryCluster):
        async def get(self, *where):
            clock[0] += timedelta(seconds=1)
            return await super().get(*where)

    cluster, cache = Slow(lambda: "2026-01-01T00:00:00Z"), Cache()
    controllers = Controllers(cluster, cache, platform_with("trainer"), now=lambda: clock[0])
    await controllers.process(contents_of("team"))
    looked = clock[0]
    assert looked > datetime(2026, 1, 1, tzinfo=UTC)
    assert await controllers.process(contents_of("team")) == pytest.approx(20.0)
    assert clock[0] == looked, "nothing was asked"
    await controllers.process(contents_of("other"))
    assert clock[0] > looked
    clock[0] += timedelta(seconds=21)
    before = clock[0]
    await controllers.process(contents_of("team"))
    assert clock[0] > before
