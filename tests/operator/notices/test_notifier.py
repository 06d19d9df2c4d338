"""CloudEvents about models: what is news, and a real HTTP server that receives it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from memory_cluster import MemoryCluster
from world import World

from hone_dev.tools.threaded import served
from hone_operator.notices.notifier import BUSY_SECONDS, LEDGER, Notifier
from hone_operator.notices.webhook import Webhook
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key, served_in

pytestmark = pytest.mark.pure
KEY = b"canary-of-the-webhook-key"
NOW = "2026-01-02T00:10:00Z"
VERSION: dict[str, Any] = {
    "kind": "ModelVersion",
    "metadata": {"namespace": "team", "name": "tutor-v1", "uid": "u1", "creationTimestamp": "2026-01-02T00:00:00Z"},
    "spec": {
        "modelName": "tutor",
        "version": 1,
        "evaluation": {"numbers": [{"name": "loss", "dataset": "rows/validation", "base": "3.9", "tuned": "2.1"}]},
    },
    "status": {},
}
MODEL: dict[str, Any] = {
    "kind": "Model",
    "metadata": {"namespace": "team", "name": "tutor", "uid": "u2", "creationTimestamp": "2026-01-02T00:00:00Z"},
    "spec": {},
    "status": {},
}


class Receiver:
    """Takes events whose signature is right; `status` is its answer to the next ones."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.status = 204

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/hooks/secret-path", self._take)
        return application

    async def _take(self, request: web.Request) -> web.Response:
        body, headers = await request.read(), request.headers
        text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        right = base64.b64encode(hmac.digest(KEY, text, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{right}"
        assert headers["Content-Type"].startswith("application/cloudevents+json")
        event = json.loads(body)
        assert event["id"] == headers["webhook-id"]
        assert abs(int(headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 300
        if self.status == 204:
            self.events.append(event)
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})

    @property
    def seen(self) -> list[tuple[str, Any]]:
        """(type, what changed) of each event."""
        what = {"evaluated": "numbers", "approval": "state", "delivered": "location", "alias": "version"}
        kinds = [event["type"].rpartition(".")[2] for event in self.events]
        return [(kind, event["data"][what[kind]]) for kind, event in zip(kinds, self.events, strict=True)]


class Scene:
    """A namespace with a version of a model, and a receiver."""

    def __init__(self, url: str, folder: Path, receiver: Receiver) -> None:
        self.receiver, self.cache, self.cluster = receiver, Cache(), MemoryCluster(lambda: NOW)
        self.webhook = Webhook(f"{url}/hooks/secret-path", folder / "hmac-key")
        self.webhook.key_file.write_bytes(KEY + b"\n")
        self.version, self.model = json.loads(json.dumps([VERSION, MODEL]))
        self.restart()

    def restart(self) -> None:
        """Another operator, which knows only what the API server has."""
        now = lambda: datetime(2026, 1, 2, 0, 10, tzinfo=UTC)  # noqa: E731
        self.notifier = Notifier(self.cluster, self.cache, self.webhook, now)

    async def look(self) -> float | None:
        self.cache.put("ModelVersion", json.loads(json.dumps(self.version)))
        self.cache.put("Model", json.loads(json.dumps(self.model)))
        return await self.notifier.process("team")

    def approve(self, state: str, by: str | None = "ada") -> None:
        self.version["spec"]["approval"] = {"state": state, **({"by": by} if by else {})}

    def point(self, version: int, since: str) -> None:
        entry = {"name": "champion", "version": version, "modelVersion": f"tutor-v{version}", "since": since}
        self.model["status"]["aliases"] = [entry]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def scene(receiver: Receiver, tmp_path: Path) -> Iterator[Scene]:
    with served(receiver.application()) as url:
        yield Scene(url, tmp_path, receiver)


async def test_each_end_of_a_version_is_reported_once(scene: Scene, receiver: Receiver) -> None:
    assert await scene.look() is None
    assert receiver.seen == [("evaluated", VERSION["spec"]["evaluation"]["numbers"])]
    scene.approve("Approved")
    scene.point(1, "2026-01-02T00:05:00Z")
    delivery = {"uri": "s3://b/p", "key": "k", "state": "Delivering"}
    scene.version["status"]["deliveries"] = [delivery]
    await scene.look()
    scene.version["status"]["deliveries"] = [
        {**delivery, "state": "Delivered", "location": "s3://b/p/tutor-v1", "deliveredAt": "2026-01-02T00:06:00Z"}
    ]
    await scene.look()
    assert receiver.seen[1:] == [("approval", "Approved"), ("alias", 1), ("delivered", "s3://b/p/tutor-v1")]
    first = receiver.events[1]
    assert (first["specversion"], first["source"]) == ("1.0", "hone.dev/operator")
    assert first["subject"] == "team/modelversions/tutor-v1"
    assert first["data"] == {
        "namespace": "team", "model": "tutor", "version": 1, "name": "tutor-v1", "state": "Approved", "by": "ada"
    }  # fmt: skip
    scene.restart()
    assert await scene.look() is None
    assert len(receiver.events) == 4


async def test_a_decision_that_goes_to_and_fro_is_reported_each_time(scene: Scene, receiver: Receiver) -> None:
    for state in ("Approved", "Candidate", "Approved", "Candidate", "Approved"):
        await scene.look()
        scene.approve(state, "ada" if state == "Approved" else None)
    await scene.look()
    assert [what for kind, what in receiver.seen if kind == "approval"] == [
        "Approved", "Candidate", "Approved", "Candidate", "Approved"
    ]  # fmt: skip
    assert len({event["id"] for event in receiver.events}) == len(receiver.events)


async def test_an_alias_that_points_nowhere_any_more_is_reported(scene: Scene, receiver: Receiver) -> None:
    scene.model["spec"] = {"promotion": {"aliases": ["champion"]}, "aliases": [{"name": "other", "version": 9}]}
    await scene.look()
    assert receiver.seen == [("evaluated", VERSION["spec"]["evaluation"]["numbers"])], "it never pointed anywhere"
    for version in (1, None, 1):
        if version:
            scene.point(version, "2026-01-02T00:05:00Z")
        else:
            scene.model["status"] = {}
        for _ in range(2):
            await scene.look()
            scene.restart()
    assert receiver.seen[1:] == [("alias", 1), ("alias", None), ("alias", 1)]
    assert len({event["id"] for event in receiver.events}) == 4
    lost = receiver.events[2]
    assert lost["data"] == {"namespace": "team", "model": "tutor", "alias": "champion", "version": None}
    assert lost["subject"] == "team/models/tutor"


@pytest.mark.parametrize("answer", [500, 429, 302, 404])
async def test_what_is_not_accepted_is_sent_again(
    scene: Scene, receiver: Receiver, caplog: pytest.LogCaptureFixture, answer: int
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.status = answer
    first = await scene.look()
    second = await scene.look()
    assert first is not None
    assert second is not None
    assert 0 < first < second, "with growing pauses"
    assert receiver.events == []
    receiver.status = 204
    assert await scene.look() is None
    assert [kind for kind, _ in receiver.seen] == ["evaluated"]
    assert f"127.0.0.1 answers {answer}" in caplog.text
    assert KEY.decode() not in caplog.text
    assert "secret-path" not in caplog.text


async def test_an_event_that_was_sent_before_a_kill_has_the_same_id(scene: Scene, receiver: Receiver) -> None:
    await scene.look()
    scene.approve("Approved")
    before = json.loads(json.dumps(scene.cluster.objects["ConfigMap", "team", LEDGER]))
    await scene.look()
    scene.cluster.objects["ConfigMap", "team", LEDGER] = before  # the operator died before it wrote
    scene.restart()
    await scene.look()
    assert [kind for kind, _ in receiver.seen] == ["evaluated", "approval", "approval"]
    assert receiver.events[1] == receiver.events[2]


async def test_what_was_there_before_is_not_reported(scene: Scene, receiver: Receiver) -> None:
    scene.version["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z"
    scene.approve("Approved")
    scene.point(1, "2025-06-01T00:00:00Z")
    assert await scene.look() is None
    assert receiver.events == []
    scene.point(2, "2026-01-02T00:09:00Z")
    await scene.look()
    assert receiver.seen == [("alias", 2)]


@pytest.mark.parametrize("text", ["[]", "{", "7", "[" * 3000, '{"a": [1]}'])
async def test_a_ledger_that_somebody_wrote_into_stops_nothing(scene: Scene, receiver: Receiver, text: str) -> None:
    meta = {"name": LEDGER, "namespace": "team"}
    scene.cluster.add({"kind": "ConfigMap", "metadata": meta, "data": {"sent.json": text}})
    assert await scene.look() is None
    assert [kind for kind, _ in receiver.seen] == ["evaluated"]


async def test_without_its_key_nothing_is_sent(
    scene: Scene, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    scene.webhook.key_file.write_bytes(b"\n")
    assert await scene.look()
    scene.webhook.key_file.unlink()
    assert await scene.look()
    assert receiver.events == []
    assert caplog.text.count("the key that signs events cannot be read") == 2
    scene.webhook.key_file.write_bytes(KEY)
    assert await scene.look() is None
    assert len(receiver.events) == 1


async def test_a_slow_receiver_keeps_one_worker_busy(scene: Scene, receiver: Receiver) -> None:
    scene.cache.put("ModelVersion", scene.version)
    first, second = await asyncio.gather(scene.notifier.process("team"), scene.notifier.process("other"))
    assert (first, second) == (None, BUSY_SECONDS)
    assert await scene.notifier.process("other") is None


async def test_an_object_of_another_shape_costs_nobody_the_events(scene: Scene, receiver: Receiver) -> None:
    odd = {"metadata": {"namespace": "team", "name": "odd", "uid": "u9"}, "spec": {"evaluation": 3}, "status": []}
    scene.cache.put("ModelVersion", {**odd, "kind": "ModelVersion"})
    await scene.look()
    assert [kind for kind, _ in receiver.seen] == ["evaluated"]


async def test_the_life_of_a_model_is_reported(receiver: Receiver, tmp_path: Path) -> None:
    """By the real controllers: a change of an object leads to the event."""
    (tmp_path / "hmac-key").write_bytes(KEY)
    with served(receiver.application()) as url:
        world = World.new()
        webhook = Webhook(f"{url}/hooks/secret-path", tmp_path / "hmac-key")
        world.controllers.notifier = Notifier(world.cluster, world.cache, webhook, world.controllers.now)
        requested: list[Key] = []
        world.controllers.request = lambda key, after=0.0: requested.append(key)

        async def live(rounds: int) -> None:
            for _ in range(rounds):
                await world.live(1)
                for key in (served_in("team"), *requested):
                    await world.controllers.process(key)

        await live(12)
        (version,) = world.cluster.of("ModelVersion")
        version["spec"]["approval"] = {"state": "Approved", "by": "ada"}
        version["metadata"]["generation"] += 1
        world.cluster.touch(version, "patch")
        await live(2)
    assert [kind for kind, _ in receiver.seen] == ["evaluated", "approval"]
