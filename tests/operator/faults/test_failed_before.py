"""A run that the operator has ended stays ended when its status and its Jobs are lost: a record of it is kept apart."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from support.lives.world import RUN, MemoryWorld

from hone_operator.queueing.routing import Key
from hone_operator.reconcile.core.conditions import is_true

pytestmark = pytest.mark.pure


class FailedWorld(MemoryWorld):
    """A namespace with a run that has an hour."""

    def __init__(self) -> None:
        super().__init__()
        self.claims("models", "hone-store")
        self.rows()
        self.add("FineTuneJob", "run", {**RUN, "deadline": "1h"})

    async def look(self) -> None:
        """Twice: of what a decision writes, another may be made."""
        for _ in range(2):
            await self.process(Key("FineTuneJob", "team", "run"))

    async def end(self) -> None:
        """The run begins, and its hour is over."""
        await self.look()
        assert self.cluster.of("Job"), "it has begun"
        self.now += timedelta(hours=1)
        await self.look()
        assert self.job["status"]["failure"]["code"] == "DeadlineExceeded"

    def lose(self) -> None:
        """The status, and the Jobs."""
        self.job["status"] = {}
        self.cluster.touch(self.job, "lost")
        for job in self.cluster.of("Job"):
            self.cluster.remove(job)

    def record(self) -> Any:
        (found,) = (c for c in self.cluster.of("ConfigMap") if "failure.json" in c["data"])
        return found


async def test_it_does_not_begin_again() -> None:
    world = FailedWorld()
    await world.end()
    was = world.job["status"]
    world.lose()
    world.now += timedelta(hours=1)
    await world.look()
    assert not world.cluster.of("Job")
    status = world.job["status"]
    assert (status["phase"], status["failure"]) == ("Failed", was["failure"])
    assert status["completionTime"] == was["completionTime"]
    assert is_true(world.job, "Finished")
    assert [c["reason"] for c in status["conditions"] if c["type"] == "Running"] == ["RestoredFromRecord"]


async def test_the_record_goes_with_the_run() -> None:
    world = FailedWorld()
    await world.end()
    assert world.record()["immutable"]
    (owner,) = world.record()["metadata"]["ownerReferences"]
    assert owner["uid"] == world.job["metadata"]["uid"]


@pytest.mark.attack("plans")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 3000,
        '{"code": "Nonsense", "message": ""}',
        '{"code": [], "message": ""}',
        '{"code": "OutOfMemory"}',
        '{"code": "OutOfMemory", "message": "\\ud800"}',
        '{"code": "OutOfMemory", "message": "' + "x" * 5000 + '"}',
    ],
    ids=lambda text: text[:60],
)
async def test_a_record_that_nobody_can_read_ends_no_run(text: str) -> None:
    world = FailedWorld()
    await world.end()
    world.record()["data"]["failure.json"] = text
    world.lose()
    await world.look()
    assert [j["metadata"]["name"] for j in world.cluster.of("Job")] == ["run-1"]


@pytest.mark.attack("plans")
async def test_a_record_of_another_object_ends_no_run() -> None:
    world = FailedWorld()
    await world.end()
    record = world.record()
    record["metadata"]["ownerReferences"][0]["uid"] = "another"
    record["data"]["failure.json"] = json.dumps({"code": "OutOfMemory", "message": "planted"})
    world.lose()
    await world.look()
    assert [j["metadata"]["name"] for j in world.cluster.of("Job")] == ["run-1"]
