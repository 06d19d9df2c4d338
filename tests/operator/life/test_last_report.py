"""Reports are written into the status once an interval. Once no attempt runs, it has the newest: no later one
will come, and no older one takes it back.
"""

from __future__ import annotations

import pytest
from support.cluster.platforms import changed
from support.lives.lives import RESULTS
from support.lives.world import World

from hone_api.contract.report import HoneStatus, ProgressReport, TrainerStatus
from hone_operator.progress.store import ProgressStore
from hone_operator.queueing.routing import Key

pytestmark = pytest.mark.pure


def report(step: int) -> ProgressReport:
    return ProgressReport(trainer_status=TrainerStatus(), hone=HoneStatus(stage="Training", step=step, total_steps=100))


async def look(world: World) -> None:
    """The operator looks at the job."""
    world.cluster.tell(world.cache)
    await world.controllers.process(Key("FineTuneJob", "team", "run"))
    assert world.errors == []


async def step_of(world: World) -> int:
    """The step in the status after the operator has looked at the job."""
    await look(world)
    step: int = world.job["status"]["progress"]["step"]
    return step


@pytest.mark.parametrize("end", ["failed", "deleted", "suspended"])
async def test_the_last_report_of_an_attempt_that_has_ended_is_in_the_status(end: str) -> None:
    world = World("running")
    store = ProgressStore(lambda key: None, interval=3600)
    world.controllers.reports = store
    (job,) = world.jobs("training")
    uid = world.job["metadata"]["uid"]
    assert store.accept(uid, ("team", "run"), 1, report(40))
    assert store.accept(uid, ("team", "run"), 1, report(60))
    assert await step_of(world) == 40, "while it runs, one write an interval"
    if end == "suspended":
        for body in (world.job, job):
            body["spec"]["suspend"] = True
            world.cluster.touch(body, "spec")
        assert await step_of(world) == 40, "its pods still report"
    if end == "deleted":
        world.cluster.remove(job)
    if end != "failed":
        for pod in world.cluster.of("Pod"):
            world.cluster.remove(pod)
    else:
        failed = {"type": "Failed", "status": "True", "lastTransitionTime": world.time()}
        job["status"]["conditions"] = [failed]
        world.cluster.touch(job, "status")
    assert await step_of(world) == 60


async def test_while_rows_are_encoded_the_status_is_written_once_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("fetch", "materialize"):
        monkeypatch.setitem(RESULTS, kind, {**RESULTS[kind], "digest": "sha256:" + "6" * 64})
    world = World("fetching")
    world.controllers.platform = changed(world.controllers.platform, encoding__from_size="0")
    store = ProgressStore(lambda key: None, interval=3600)
    world.controllers.reports = store
    await world.live(4)
    (job,) = world.jobs("encode")
    versions = set()
    for rows in range(1, 20):
        encoding = HoneStatus(stage="Encoding", step=rows, total_steps=100)
        assert store.accept(
            job["metadata"]["uid"], None, 0, ProgressReport(trainer_status=TrainerStatus(), hone=encoding)
        )
        world.cluster.touch(job, "status")
        await look(world)
        assert world.job["status"]["progress"]["summary"] == "rows 1/100 1%"
        versions.add(world.job["metadata"]["resourceVersion"])
    assert len(versions) == 1
