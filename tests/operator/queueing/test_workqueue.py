"""The work queue: coalescing, one run a key at a time, backoff, timers."""

from __future__ import annotations

import asyncio

import pytest

from hone_operator.queueing import workqueue
from hone_operator.queueing.workqueue import WorkQueue

pytestmark = pytest.mark.pure


class Runs:
    """A process function that remembers, and can be held and made to fail."""

    def __init__(self, concurrency: int = 4):
        self.done: list[str] = []
        self.now: set[str] = set()
        self.most = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self.failures: list[BaseException] = []
        self.after: list[float | None] = []
        self.queue: WorkQueue[str] = WorkQueue(self, concurrency)
        self.task = asyncio.create_task(self.queue.run())

    async def __call__(self, key: str) -> float | None:
        assert key not in self.now, "a key runs once at a time"
        self.now.add(key)
        self.most = max(self.most, len(self.now))
        try:
            await self.hold.wait()
            await asyncio.sleep(0)
            self.done.append(key)
            if self.failures:
                raise self.failures.pop(0)
            return self.after.pop(0) if self.after else None
        finally:
            self.now.discard(key)

    async def until(self, check):
        async with asyncio.timeout(20):
            while not check():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@pytest.fixture
async def runs():
    runs = Runs()
    yield runs
    runs.task.cancel()
    await asyncio.gather(runs.task, return_exceptions=True)


async def test_many_requests_become_one_run(runs):
    for _ in range(100):
        runs.queue.request("a")
    await runs.until(lambda: runs.done)
    await asyncio.sleep(0.01)
    assert runs.done == ["a"]
    assert runs.queue.caught_up


async def test_a_request_while_running_becomes_one_more_run(runs):
    runs.hold.clear()
    runs.queue.request("a")
    await runs.until(lambda: "a" in runs.now)
    for _ in range(10):
        runs.queue.request("a")
    runs.hold.set()
    await runs.until(lambda: len(runs.done) == 2)
    await asyncio.sleep(0.01)
    assert runs.done == ["a", "a"]


async def test_concurrency_is_bounded(runs):
    runs.hold.clear()
    for n in range(20):
        runs.queue.request(f"k{n}")
    await runs.until(lambda: len(runs.now) == 4)
    await asyncio.sleep(0.01)
    assert runs.queue.depth == 16
    runs.hold.set()
    await runs.until(lambda: len(runs.done) == 20)
    assert runs.most == 4


@pytest.mark.parametrize("turns", range(5))
async def test_it_ends_when_it_is_cancelled_while_a_key_is_requested(runs, turns):
    runs.after = [3600.0]  # it waits for a time as well as for requests
    runs.queue.request("later")
    await runs.until(lambda: runs.done)
    await asyncio.sleep(0.01)
    runs.queue.request("a")
    for _ in range(turns):
        await asyncio.sleep(0)
    runs.task.cancel()
    await asyncio.wait([runs.task], timeout=20)
    assert runs.task.cancelled()


async def test_a_failure_comes_again_with_growing_pauses(runs, monkeypatch):
    monkeypatch.setattr(workqueue, "FIRST_BACKOFF", 0.01)
    waits = []
    runs.queue.on_failure = lambda key, error: waits.append(runs.queue._failures[key])
    runs.failures = [RuntimeError("one"), RuntimeError("two"), RuntimeError("three")]
    runs.queue.request("a")
    await runs.until(lambda: len(runs.done) == 4)
    assert waits == [1, 2, 3]
    await runs.until(lambda: not runs.queue._failures)


async def test_a_failing_key_is_not_run_at_once_because_it_was_asked_for(runs, monkeypatch):
    monkeypatch.setattr(workqueue, "FIRST_BACKOFF", 5.0)
    runs.hold.clear()
    runs.failures = [RuntimeError("no")]
    runs.queue.request("a")
    await runs.until(lambda: "a" in runs.now)
    runs.queue.request("a")
    runs.hold.set()
    await runs.until(lambda: runs.done)
    await asyncio.sleep(0.05)
    assert runs.done == ["a"]


async def test_the_last_run_decides_when_to_come_again(runs):
    runs.after = [3600.0, 0.02, None]
    runs.queue.request("a")
    await runs.until(lambda: len(runs.done) == 1)
    runs.queue.request("a")
    await runs.until(lambda: len(runs.done) == 3)
    await asyncio.sleep(0.05)
    assert len(runs.done) == 3


async def test_a_stuck_run_shows_as_a_growing_wait(runs):
    runs.hold.clear()
    runs.queue.request("a")
    await runs.until(lambda: "a" in runs.now)
    await asyncio.sleep(0.05)
    assert runs.queue.stuck_for() >= 0.05
    runs.hold.set()
    await runs.until(lambda: runs.done)
    await runs.until(lambda: runs.queue.stuck_for() == 0)


@pytest.mark.attack("objects at the API server")
async def test_a_tenant_that_waits_behind_itself_is_not_taken_for_a_stuck_queue():
    clock = asyncio.get_running_loop().time
    asked, waited, stuck, done = clock(), 0.0, 0.0, asyncio.Event()

    async def process(key: int) -> None:
        nonlocal waited, stuck
        waited, stuck = clock() - asked, max(stuck, queue.stuck_for())
        await asyncio.sleep(0.02)
        if key == 49:
            done.set()

    queue: WorkQueue[int] = WorkQueue(process, concurrency=1, tenant_of=lambda key: "noisy")
    for n in range(50):
        queue.request(n)
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(60):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert waited > 0.9
    assert stuck < waited / 2, "each time a run has only just begun, whoever waits"


@pytest.mark.attack("objects at the API server")
async def test_a_tenant_has_a_quarter_of_the_slots_while_others_work(monkeypatch):
    hold, running = asyncio.Event(), set[str]()

    async def process(key: str) -> None:
        if key != "quiet/a":
            running.add(key)
            await hold.wait()
            running.discard(key)

    queue: WorkQueue[str] = WorkQueue(process, concurrency=8, tenant_of=lambda key: key.partition("/")[0])
    queue.request("quiet/a")
    for n in range(20):
        queue.request(f"noisy/{n}")
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(0.01)
    assert len(running) == 2
    monkeypatch.setattr(workqueue, "RECENT_SECONDS", 0.0)
    queue.request("noisy/20")  # wakes the queue: the other tenant has been silent for long
    await asyncio.sleep(0.01)
    assert len(running) == 6
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.attack("objects at the API server")
async def test_ready_although_a_tenant_asks_for_more_and_more():
    async def process(key: str) -> None:
        queue.request("noisy")
        await asyncio.sleep(0)

    queue: WorkQueue[str] = WorkQueue(process)
    assert not queue.caught_up
    queue.request("noisy")
    queue.request("quiet")
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(60):
        while not queue.caught_up:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert queue.depth or queue._running
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_run_that_takes_too_long_is_given_up(monkeypatch):
    calls = []

    async def process(key):
        calls.append(key)
        if len(calls) == 1:
            await asyncio.sleep(3600)

    monkeypatch.setattr(workqueue, "FIRST_BACKOFF", 0.01)
    queue: WorkQueue[str] = WorkQueue(process, run_limit=0.05)
    task = asyncio.create_task(queue.run())
    queue.request("a")
    async with asyncio.timeout(20):
        while len(calls) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_api_server_s_retry_after_is_obeyed(runs):
    class BusyError(Exception):
        retry_after = 3600.0

    runs.failures = [BusyError()]
    runs.queue.request("a")
    await runs.until(lambda: runs.done)
    await asyncio.sleep(0)
    assert runs.queue._due["a"] - asyncio.get_running_loop().time() > 3000


@pytest.mark.attack("objects at the API server")
async def test_a_flood_of_one_tenant_delays_only_that_tenant():
    order: list[str] = []

    async def process(key: str) -> None:
        order.append(key)
        await asyncio.sleep(0)

    queue: WorkQueue[str] = WorkQueue(process, concurrency=1, tenant_of=lambda key: key.partition("/")[0])
    for n in range(1000):
        queue.request(f"noisy/{n}")
    queue.request("quiet/a")
    queue.request("quiet/b")
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(20):
        while len(order) < 1002:  # noqa: ASYNC110
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert order.index("quiet/a") <= 2
    assert order.index("quiet/b") <= 4
    assert [k for k in order if k.startswith("noisy/")] == [f"noisy/{n}" for n in range(1000)]


@pytest.mark.attack("objects at the API server")
async def test_slow_runs_of_one_tenant_leave_slots_for_the_others():
    hold, done = asyncio.Event(), asyncio.Event()

    async def process(key: str) -> None:
        if key == "quiet/a":
            done.set()
        else:
            await hold.wait()

    queue: WorkQueue[str] = WorkQueue(process, concurrency=4, tenant_of=lambda key: key.partition("/")[0])
    for n in range(100):
        queue.request(f"noisy/{n}")
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(0.01)
    queue.request("quiet/a")
    async with asyncio.timeout(20):
        await done.wait()
    assert queue.depth == 97
    hold.set()
    async with asyncio.timeout(20):
        while queue.depth or queue.stuck_for():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
