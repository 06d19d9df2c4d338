"""Which attempts are asked after, how often, and who hears that a Service or NetworkPolicy is gone."""

from __future__ import annotations

from typing import Any

import pytest

from hone_operator.apiserver.errors import ClusterError, NamespaceGoneError
from hone_operator.namespaces import networkpatrol
from hone_operator.namespaces.networkpatrol import MOST, NetworkedJob, NetworkPatrol
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key

pytestmark = pytest.mark.pure
TRAINING = {"hone.dev/component": "training", "hone.dev/attempt": "1"}


class Server:
    """Has every Service and NetworkPolicy but those that were deleted, and remembers what it was asked."""

    def __init__(self) -> None:
        self.gone: set[tuple[str, str, str]] = set()
        self.broken: dict[str, ClusterError] = {}
        self.asked: list[tuple[str, str, str]] = []

    async def exists(self, kind: str, namespace: str, name: str) -> bool:
        self.asked.append((kind, namespace, name))
        if namespace in self.broken:
            raise self.broken[namespace]
        return (kind, namespace, name) not in self.gone


class World:
    def __init__(self, **options: Any) -> None:
        self.server, self.cache, self.lost = Server(), Cache(), list[NetworkedJob]()
        self.patrol = NetworkPatrol(self.server, self.cache, self.lost.append, **options)

    def attempt(self, namespace: str = "team", run: str = "run", **job: Any) -> NetworkedJob:
        """A Job of two nodes, with one pod that has its node."""
        meta = {"namespace": namespace, "name": f"{run}-1", "uid": f"{namespace}-{run}", "labels": TRAINING}
        owner = {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "name": run, "uid": "u", "controller": True}
        self.cache.put("FineTuneJob", {"metadata": {"namespace": namespace, "name": run, "uid": "u"}, "spec": {}})
        owner |= job.pop("owner", {})
        labels = job.pop("labels", TRAINING)
        where = job.pop("where", "True")
        body = {"metadata": {**meta, "labels": labels, "ownerReferences": [owner]}, "spec": {"completions": 2}, **job}
        self.cache.put("Job", body)
        of_job = {"apiVersion": "batch/v1", "kind": "Job", "name": f"{run}-1", "uid": meta["uid"], "controller": True}
        pod = {"namespace": namespace, "name": f"{run}-1-0", "uid": f"pod-{namespace}-{run}", "labels": TRAINING}
        status = {"conditions": [{"type": "PodScheduled", "status": where}]}
        self.cache.put("Pod", {"metadata": {**pod, "ownerReferences": [of_job]}, "status": status})
        return NetworkedJob(namespace, f"{run}-1", Key("FineTuneJob", namespace, run))


@pytest.mark.parametrize("kind", ["Service", "NetworkPolicy"])
async def test_an_attempt_that_lacks_one_of_the_two_is_reported_in_each_round(kind: str) -> None:
    world = World()
    first, other = world.attempt(run="first"), world.attempt(run="other")
    await world.patrol.look_around()
    assert world.lost == []
    assert len(world.server.asked) == 4
    world.server.gone.add((kind, "team", first.name))
    await world.patrol.look_around()
    await world.patrol.look_around()
    assert world.lost == [first, first]
    world.server.gone = {(kind, "team", other.name)}
    await world.patrol.look_around()
    assert world.lost == [first, first, other]


UNCONCERNED: dict[str, dict[str, Any]] = {
    "one node": {"spec": {"completions": 1}},
    "ended": {"status": {"conditions": [{"type": "Complete", "status": "True"}]}},
    "no pod has a node": {"where": "False"},
    "no training": {"labels": {"hone.dev/component": "fetch"}},
    "of a Dataset": {"owner": {"kind": "Dataset"}},
    "of a run that is gone": {"owner": {"uid": "another"}},
}


@pytest.mark.parametrize("job", UNCONCERNED.values(), ids=list(UNCONCERNED))
async def test_nobody_asks_for_what_no_ranks_need(job: dict[str, Any]) -> None:
    world = World()
    world.attempt(**job)
    await world.patrol.look_around()
    assert world.server.asked == []


async def test_nobody_asks_in_a_namespace_that_is_not_served() -> None:
    world = World(is_served=lambda namespace: namespace != "closed")
    world.attempt("closed")
    world.attempt("team")
    await world.patrol.look_around()
    assert {namespace for _, namespace, _ in world.server.asked} == {"team"}


async def test_a_namespace_with_many_attempts_delays_only_its_own() -> None:
    world = World()
    for number in range(3 * MOST):
        world.attempt("many", f"run-{number}")
    single = world.attempt("single")
    for _ in range(3):
        world.server.asked.clear()
        await world.patrol.look_around()
        assert len(world.server.asked) == 2 * MOST
        assert ("Service", "single", single.name) in world.server.asked


async def test_every_attempt_has_its_turn_and_one_that_has_ended_takes_none() -> None:
    world = World()
    attempts = [world.attempt("many", f"run-{number}") for number in range(2 * MOST)]
    await world.patrol.look_around()
    for number in range(2 * MOST):  # also those whose turn would be next
        if number % 2:
            world.attempt("many", f"run-{number}", status=UNCONCERNED["ended"]["status"])
    await world.patrol.look_around()
    await world.patrol.look_around()
    asked = {name for _, _, name in world.server.asked}
    assert asked >= {attempt.name for attempt in attempts[::2]}


@pytest.mark.parametrize("error", [NamespaceGoneError(404, "NotFound", "gone"), ClusterError(500, "x", "etcd")])
async def test_the_trouble_of_one_namespace_is_not_that_of_another(error: ClusterError) -> None:
    world = World()
    world.attempt("broken")
    world.server.broken["broken"] = error
    lost = world.attempt("team")
    world.server.gone.add(("Service", "team", lost.name))
    await world.patrol.look_around()
    assert world.lost == [lost]


async def test_rounds_go_on_after_the_api_server_could_not_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    world, pauses = World(), list[float]()
    lost = world.attempt()
    world.server.gone.add(("Service", "team", lost.name))

    class EnoughError(Exception):
        pass

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        world.server.broken = {"team": TimeoutError()} if len(pauses) < 3 else {}
        if len(pauses) == 4:
            raise EnoughError

    monkeypatch.setattr(networkpatrol.asyncio, "sleep", pause)
    with pytest.raises(EnoughError):
        await world.patrol.run()
    assert world.lost == [lost]
    assert pauses == [networkpatrol.SECONDS] * 4
