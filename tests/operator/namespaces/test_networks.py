"""How often the API server is asked for what the ranks of several nodes find each other by."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hone_api.kinds.finetunejob_status import JobProgress
from hone_operator.apiserver import existence
from hone_operator.namespaces import networks
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.core.pods import ObservedJob

pytestmark = pytest.mark.pure
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Server:
    """Has the objects of these kinds, and counts how often it is asked."""

    def __init__(self) -> None:
        self.kinds = {"Service", "NetworkPolicy"}
        self.asked = 0

    async def get(self, kind: str, namespace: str, name: str) -> Any:
        self.asked += 1
        return {} if kind in self.kinds else None


def attempt() -> ObservedJob:
    """A Job of two nodes, whose pods have nodes."""
    meta = {"namespace": "team", "name": "run-1", "labels": {"hone.dev/attempt": "1"}}
    pod = {"metadata": {"name": "run-1-0"}, "status": {"conditions": [{"type": "PodScheduled", "status": "True"}]}}
    return ObservedJob({"metadata": meta, "spec": {"completions": 2}, "status": {}}, [pod, pod])


def report(step: int, of: int = 1, start: int | None = None) -> Latest:
    return Latest(of, JobProgress(step=step), NOW, start_step=start)


async def test_a_run_that_trains_costs_two_reads_in_five_minutes(monkeypatch: Any) -> None:
    """However many reports of it come meanwhile."""
    server, now = Server(), [100.0]
    monkeypatch.setattr(existence.time, "monotonic", lambda: now[0])
    known = networks.existence_cache(server)
    for second in range(0, 300, 5):
        now[0] = 100.0 + second
        assert not await networks.is_lost(known, [attempt()], report(second + 1))
    assert server.asked == 2
    server.kinds.remove("NetworkPolicy")
    now[0] = 400.0
    assert await networks.is_lost(known, [attempt()], report(301))


@pytest.mark.parametrize("told", [None, report(0), report(8, start=8), report(9, of=2)])
async def test_ranks_that_may_still_wait_for_each_other_are_looked_after_at_once(told: Latest | None) -> None:
    server = Server()
    known = networks.existence_cache(server)
    assert not await networks.is_lost(known, [attempt()], told)
    server.kinds.remove("Service")
    assert await networks.is_lost(known, [attempt()], told)
