"""Deleted objects leave nothing in the operator's memory: no table keeps a name or a uid for ever."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from support.cluster.memory_cluster import MemoryCluster
from support.cluster.platforms import changed
from support.lives.world import APPLIED, World

from hone_api.contract.report import HoneStatus, ProgressReport, TrainerStatus
from hone_operator.apiserver.existence import Existence
from hone_operator.monitoring.metrics import Metrics
from hone_operator.progress.store import ProgressStore
from hone_operator.queueing import workqueue
from hone_operator.queueing.pace import Pace
from hone_operator.queueing.routing import Key
from hone_operator.queueing.workqueue import WorkQueue
from hone_operator.watches import Watches

pytestmark = pytest.mark.pure
MARK = "gone-"
NAMESPACES, JOBS = 5, 4
BOUNDED = (Existence, Pace)
"""They forget by age and number."""
KINDS = ("FineTuneJob", "Dataset", "ModelVersion", "Model", "Job", "Pod")


class Running:
    """An operator without watches, next to an API server in memory with jobs in several namespaces."""

    def __init__(self) -> None:
        self.world = World.new()
        controllers, cache = self.world.controllers, self.world.cache
        controllers.platform = changed(controllers.platform, tenants__max_active_jobs=100)
        self.queue: WorkQueue[Key] = WorkQueue(controllers.process, tenant_of=lambda key: key.namespace)
        self.reports = ProgressStore(lambda key: self.queue.request(Key("FineTuneJob", *key)), 10)
        self.metrics = Metrics(cache, self.reports, lambda: self.queue.depth, controllers.stored)
        self.watches = Watches(self.world.cluster, cache, self.queue, ())
        self.watches.gone = (self.reports.drop, self.metrics.forget)
        self.watches.removed, controllers.on_done = controllers.gone, self.metrics.reconciled
        controllers.request = self.queue.request
        self.fill()

    def fill(self) -> None:
        objects = self.world.cluster.objects
        applied = [body for body in objects.values() if body["kind"] in APPLIED]
        objects.clear()
        for body in applied:
            several = range(JOBS if body["kind"] == "FineTuneJob" else 1)
            for namespace, number in ((n, j) for n in range(NAMESPACES) for j in several):
                one = copy.deepcopy(body)
                name = f"{MARK}{number}" if body["kind"] == "FineTuneJob" else body["metadata"]["name"]
                one["metadata"] |= {"namespace": f"{MARK}{namespace}", "name": name}
                self.world.cluster.add(one)

    async def work(self) -> None:
        """Until nothing waits to run now."""
        running = asyncio.create_task(self.queue.run())
        while self.queue.depth or not self.queue.caught_up or self.queue._running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def delete_everything(self) -> None:
        cluster, cache = self.world.cluster, self.world.cache
        for body in [body for kind in KINDS for body in cache.items(kind)]:
            cache.remove(body["kind"], body)
            self.watches.changed(body["kind"], body)
        cluster.objects.clear()


def marked(thing: Any, path: str, seen: set[int]) -> Iterator[str]:
    """Where a text with the mark is kept, in our objects, those of the metrics library, and containers."""
    if isinstance(thing, str):
        if MARK in thing:
            yield f"{path}: {thing}"
        return
    if id(thing) in seen or isinstance(thing, (*BOUNDED, MemoryCluster, World)):
        return
    seen.add(id(thing))
    if isinstance(thing, Mapping):
        for key, value in list(thing.items()):
            yield from marked(key, f"{path}[key]", seen)
            yield from marked(value, f"{path}[{key!r:.40}]", seen)
    elif isinstance(thing, (list, tuple, set, frozenset)):
        for inner in thing:
            yield from marked(inner, f"{path}[]", seen)
    elif type(thing).__module__.startswith(("hone_operator", "prometheus_client")):
        for name, value in vars(thing).items() if hasattr(thing, "__dict__") else ():
            yield from marked(value, f"{path}.{name}", seen)


def kept(operator: Running) -> list[str]:
    parts = {"controllers": operator.world.controllers, "watches": operator.watches, "metrics": operator.metrics}
    seen: set[int] = set()
    return [place for name, part in parts.items() for place in marked(part, name, seen)]


async def test_what_was_deleted_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workqueue, "RECENT_SECONDS", 0.0)
    operator = Running()
    await operator.world.live(8)
    operator.watches.request_all()
    await operator.work()
    jobs = operator.world.cache.items("FineTuneJob")
    assert len(jobs) == NAMESPACES * JOBS
    assert {job["status"]["phase"] for job in jobs} & {"Running", "Succeeded"}
    report = ProgressReport(trainer_status=TrainerStatus(), hone=HoneStatus(stage="Training", step=1))
    for meta in (job["metadata"] for job in jobs):
        operator.reports.accept(meta["uid"], (meta["namespace"], meta["name"]), 1, report)
    assert len(kept(operator)) > 20 * NAMESPACES * JOBS, "the search finds nothing"
    operator.delete_everything()
    await operator.work()
    operator.queue.request(Key("Dataset", "another", "rows"))  # the queue forgets tenants when it looks for the next
    await operator.work()
    operator.metrics._forget_namespaces()  # at each scrape
    assert kept(operator) == [], "a table keeps what is gone"
    assert len(operator.world.cache) == 0
