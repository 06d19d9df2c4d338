"""Coalescing: at once, then at most one nudge in an interval, and never a lost last report."""

import asyncio

import pytest

from hone_api.contract.report import HoneStatus, ProgressReport, TrainerStatus
from hone_operator.progress.store import ProgressStore

pytestmark = pytest.mark.pure
KEY = ("ml", "a")


def report(step):
    return ProgressReport(trainer_status=TrainerStatus(), hone=HoneStatus(stage="Training", step=step))


async def test_a_burst_becomes_two_nudges_and_the_last_report_is_seen():
    nudges, second = [], asyncio.Event()

    def changed(key):
        nudges.append((key, store.latest("uid").step))
        if len(nudges) == 2:
            second.set()

    store = ProgressStore(changed, interval=0.2)
    for step in range(1, 51):
        assert store.accept("uid", KEY, 1, report(step))
    assert nudges == [(KEY, 1)]
    await second.wait()
    assert nudges == [(KEY, 1), (KEY, 50)]
    await asyncio.sleep(0.5)
    assert len(nudges) == 2


async def test_a_decision_in_between_sees_the_report_that_the_status_has():
    """Or each event of a pod would write a newer report."""
    second = asyncio.Event()
    nudges = []

    def changed(key):
        nudges.append(store.due("uid").step)
        if len(nudges) == 2:
            second.set()

    store = ProgressStore(changed, interval=0.2)
    assert store.due("uid") is None
    for step in range(1, 4):
        store.accept("uid", KEY, 1, report(step))
        assert store.due("uid").step == 1
    assert store.latest("uid").step == 3
    await second.wait()
    assert nudges == [1, 3]
    assert store.due("uid").step == 3
    store.drop("uid")
    assert store.due("uid") is None


async def test_for_those_who_look_for_themselves_a_report_is_also_due_once_an_interval():
    """Or each decision about a FineTuneJob whose rows are being encoded would write a newer report."""
    nudges = []
    store = ProgressStore(nudges.append, interval=0.2)
    for step in range(1, 4):
        store.accept("uid", None, 0, report(step))
        assert store.due("uid").step == 1
    await asyncio.sleep(0.5)
    assert store.due("uid").step == 3, "the last report is not lost"
    assert nudges == []


async def test_jobs_do_not_hold_each_other_up():
    nudges = []
    store = ProgressStore(nudges.append, interval=60)
    store.accept("1", ("ml", "a"), 1, report(1))
    store.accept("2", ("ml", "b"), 1, report(1))
    assert nudges == [("ml", "a"), ("ml", "b")]


async def test_a_dropped_job_leaves_nothing():
    nudges = []
    store = ProgressStore(nudges.append, interval=0.05)
    store.accept("uid", KEY, 1, report(1))
    store.accept("uid", KEY, 1, report(2))
    store.drop("uid")
    await asyncio.sleep(0.2)
    assert nudges == [KEY]
    assert store.latest("uid") is None
    assert len(store) == 0


async def test_an_older_report_changes_nothing():
    nudges = []
    store = ProgressStore(nudges.append, interval=0)
    store.accept("uid", KEY, 1, report(5))
    assert not store.accept("uid", KEY, 1, report(4))
    assert store.latest("uid").step == 5
    assert len(nudges) == 1
