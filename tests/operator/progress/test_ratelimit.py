"""Token buckets."""

import pytest

from hone_operator.progress import ratelimit
from hone_operator.progress.ratelimit import RateLimit

pytestmark = pytest.mark.pure


def test_a_burst_and_then_the_rate():
    limit = RateLimit(rate=2, burst=5)
    assert [limit.allow("a", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [limit.allow("a", 1.0) for _ in range(3)] == [True, True, False]
    assert sum(limit.allow("a", 1000.0) for _ in range(10)) == 5


def test_keys_are_apart_and_bounded(monkeypatch):
    monkeypatch.setattr(ratelimit, "MAX_BUCKETS", 3)
    limit = RateLimit(rate=0.001, burst=1)
    assert all(limit.allow(key, 0.0) for key in "abcd")
    assert len(limit._buckets) == 3
    assert not limit.allow("d", 0.0)
