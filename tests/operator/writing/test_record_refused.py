"""A record of a model that the API server refuses: the job shows why, and goes on once it is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from support.cluster.memory_cluster import Body, MemoryCluster
from support.lives.world import World

from hone_operator.apiserver.errors import RefusedError
from hone_operator.queueing.routing import Key
from hone_operator.reconcile.core.conditions import condition, is_true

pytestmark = pytest.mark.pure
RUN = Key("FineTuneJob", "team", "run")
WORDS = "ModelVersion.hone.dev is invalid: spec.deliveries[0].uri"


class Refusing(MemoryCluster):
    """An API server that takes no ModelVersion."""

    refuses = True

    async def create(self, body: Mapping[str, Any], brief: bool = False) -> Body:
        if body["kind"] == "ModelVersion" and self.refuses:
            raise RefusedError(422, "Invalid", WORDS)
        return await super().create(body, brief)


async def test_a_refused_record_is_shown_and_written_once_it_is_accepted() -> None:
    world = World("ended")
    world.cluster.__class__ = Refusing
    world.cluster.tell(world.cache)
    with pytest.raises(RefusedError):
        await world.controllers.process(RUN)
    shown = condition(world.job, "Reconciling")
    assert (shown["status"], shown["reason"]) == ("True", "WriteRefused")
    assert shown["message"].startswith("The API server refuses to write ModelVersion tutor-v1; the operator retries: ")
    assert WORDS in shown["message"]
    events = [event["note"] for event in world.cluster.of("Event") if event["type"] == "Warning"]
    assert [WORDS in note for note in events] == [True]

    world.cluster.refuses = False
    await world.live(2)
    assert is_true(world.job, "Succeeded")
    assert not is_true(world.job, "Reconciling")
