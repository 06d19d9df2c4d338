"""What servers read while aliases move: the next version in place of the one before, and nothing withdrawn."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from support.cluster.memory_cluster import Body, MemoryCluster
from support.cluster.platforms import platform_with

from hone_api.contract.served import CONFIG_MAP
from hone_operator.apiserver.errors import ClusterError, ConflictError, RefusedError
from hone_operator.controllers import Controllers
from hone_operator.namespaces.handover import HOLD_SECONDS, LOOK_SECONDS, Holds
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key, keys_concerned, served_key

pytestmark = pytest.mark.pure
READY = {"type": "Ready", "status": "True", "reason": "Verified", "message": "", "lastTransitionTime": "2026-01-02"}
SERVED = served_key("team")


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


class Flaky(MemoryCluster):
    """Refuses the status of Models, and keeps every text about tutor in what servers read."""

    refusal: ClusterError | None = None
    immutable: ClusterError | None = None
    """The answer to writes of what servers read."""

    def __init__(self) -> None:
        super().__init__(lambda: "2026-01-02T03:04:05Z")
        self.published: list[str] = []

    async def apply_status(self, kind: str, owner: Any, status: Any) -> Body:
        if kind == "Model" and self.refusal:
            raise self.refusal
        return await super().apply_status(kind, owner, status)

    async def apply(self, body: Any) -> Body:
        if body["metadata"]["name"] == CONFIG_MAP:
            if self.immutable:
                raise self.immutable
            self.published.append(body["data"].get("tutor.json", ""))
            self.objects.pop(("ConfigMap", "team", CONFIG_MAP), None)  # its keys are the operator's alone
        return await super().apply(body)


class Team:
    """A namespace with versions of one Model, all approved, and an operator that runs the keys it is given."""

    def __init__(self, **spec: Any) -> None:
        self.cluster, self.cache, self.time = Flaky(), Cache(), 0.0
        self.requested: list[Key] = []
        self.restart()
        promotion = {"policy": "Automatic", "aliases": ["champion"]}
        self.model = self.add("Model", "tutor", spec or {"promotion": promotion})
        self.versions = {n: self.version("tutor", n) for n in (1, 2)}

    def restart(self) -> None:
        """A new operator process: it remembers nothing."""
        holds = Holds(lambda: self.time)
        now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.operator = Controllers(self.cluster, self.cache, platform_with("trainer"), now=lambda: now, holds=holds)
        self.operator.request = lambda key, after=0.0: self.requested.append(key)

    def add(self, kind: str, name: str, spec: Body) -> Body:
        return self.cluster.add({"kind": kind, "metadata": {"name": name, "namespace": "team"}, "spec": spec})

    def version(self, model: str, number: int) -> Body:
        artifact = {"format": "Adapter", "digest": digest(number), "sizeBytes": 1}
        artifact["uri"] = f"pvc://hone-store/models/r{number}/1/adapter"
        lineage = {
            "baseModel": {"uri": "hf://org/base", "location": "pvc://hone-store/base-models/b"},
            "datasets": [],
            "job": {"name": "run", "uid": "u"},
            "method": "SFT",
            "hyperParameters": {"adapter": {"type": "LoRA", "rank": 16}},
            "seed": 1,
        }
        spec = {"modelName": model, "version": number, "artifacts": [artifact], "lineage": lineage}
        body = self.add("ModelVersion", f"{model}-v{number}", spec | {"approval": {"state": "Approved", "by": "ada"}})
        body["status"] = {"conditions": [READY]}
        return body

    def withdraw(self, number: int) -> None:
        self.versions[number]["spec"]["approval"] = {"state": "Candidate"}
        self.cluster.touch(self.versions[number], "patch")

    async def run(self, *keys: Key) -> float | None:
        """Run these keys in this order, without what they request; what the last one returned."""
        self.cluster.tell(self.cache)
        again = None
        for key in keys:
            again = await self.operator.process(key)
        return again

    async def settle(self) -> None:
        await self.run(Key("Model", "team", "tutor"), SERVED)

    @property
    def serves(self) -> str | None:
        """Digest that servers load as tutor@champion; None: they serve nothing."""
        body = self.cluster.objects["ConfigMap", "team", CONFIG_MAP]
        return of_champion(body["data"].get("tutor.json", ""))


def of_champion(text: str) -> str | None:
    aliases = json.loads(text or "{}").get("aliases", ())
    return next((a["adapter"]["digest"] for a in aliases if a["name"] == "champion" and "adapter" in a), None)


MODEL = Key("Model", "team", "tutor")


async def test_servers_go_from_a_withdrawn_version_straight_to_the_next() -> None:
    team = Team()
    await team.settle()
    assert team.serves == digest(2)
    team.withdraw(2)
    team.cluster.tell(team.cache)
    concerned = keys_concerned("ModelVersion", team.versions[2], team.cache)
    assert {MODEL, SERVED} <= set(concerned), "both run at once, in whatever order"
    again = await team.run(SERVED)
    assert again is not None
    assert 0 < again <= HOLD_SECONDS
    assert team.serves == digest(2), "until the Model has moved its alias"
    await team.run(MODEL)
    assert SERVED in team.requested
    assert await team.run(SERVED) is None
    assert [of_champion(text) for text in team.cluster.published] == [digest(2), digest(1)]
    assert json.loads(team.cluster.published[-1])["approved"] == [digest(1)], "servers unload the one that is withdrawn"


async def test_a_model_reports_that_its_servers_get_nothing_new() -> None:
    """Somebody made the ConfigMap immutable before the chart's policies were there."""
    team = Team()
    await team.settle()
    team.cluster.immutable = RefusedError(422, "Invalid", "field is immutable")
    team.withdraw(2)
    await team.run(MODEL)
    again = await team.run(SERVED)
    assert again == LOOK_SECONDS
    assert MODEL in team.requested
    await team.run(MODEL)
    (ready,) = (c for c in team.cluster.objects[MODEL]["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NotHandedOver")
    assert "field is immutable. If it is immutable, whoever has the verb attest" in ready["message"]
    team.cluster.immutable = None
    assert await team.run(SERVED) is None
    await team.run(MODEL)
    (ready,) = (c for c in team.cluster.objects[MODEL]["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], team.serves) == ("True", digest(1))


async def test_a_version_that_goes_is_replaced_in_one_step() -> None:
    for change in ("deleted", "rejected"):
        team = Team()
        await team.settle()
        if change == "deleted":
            team.cluster.remove(team.versions[2])
        else:
            team.versions[2]["spec"]["approval"] = {"state": "Rejected"}
            team.cluster.touch(team.versions[2], "patch")
        await team.run(SERVED, MODEL, SERVED)
        assert [of_champion(text) for text in team.cluster.published] == [digest(2), digest(1)], change


@pytest.mark.parametrize(
    "spec",
    [
        {"aliases": [{"name": "champion", "version": 2}]},
        {"promotion": {"policy": "Manual", "aliases": ["champion"]}, "aliases": [{"name": "champion", "version": 2}]},
        {"promotion": {"policy": "Automatic", "aliases": ["champion"], "gates": [{"metric": "loss"}]}},
    ],
    ids=["pinned", "two writers", "broken rule"],
)
async def test_what_is_withdrawn_leaves_at_once_if_no_alias_moves(spec: Any) -> None:
    team = Team(aliases=[{"name": "champion", "version": 2}])
    await team.settle()
    assert team.serves == digest(2)
    team.model["spec"] = spec
    team.cluster.touch(team.model, "patch")
    team.withdraw(2)
    assert await team.run(SERVED) is None
    assert team.serves is None


async def test_the_last_approved_version_leaves_with_its_alias() -> None:
    team = Team()
    team.withdraw(1)
    await team.settle()
    team.withdraw(2)
    await team.run(SERVED, MODEL, SERVED)
    assert team.serves is None


async def test_other_models_of_the_namespace_do_not_wait() -> None:
    team = Team()
    team.add("Model", "other", {"aliases": [{"name": "champion", "version": 1}]})
    team.version("other", 1)
    await team.settle()
    team.withdraw(2)
    await team.run(Key("Model", "team", "other"), SERVED)
    body = team.cluster.objects["ConfigMap", "team", CONFIG_MAP]
    assert of_champion(body["data"]["other.json"]) == digest(1)
    assert team.serves == digest(2)


@pytest.mark.parametrize("status", [500, 422])
async def test_nothing_waits_for_a_model_whose_status_is_not_written(status: int) -> None:
    team = Team()
    await team.settle()
    team.withdraw(2)
    await team.run(SERVED)
    assert team.serves == digest(2)
    team.cluster.refusal = (ClusterError if status == 500 else RefusedError)(status, "no", "nothing is written")
    team.requested.clear()
    with pytest.raises(ClusterError):
        await team.run(MODEL)
    assert SERVED in team.requested
    assert await team.run(SERVED) is None
    assert team.serves is None
    team.cluster.refusal = None
    await team.settle()
    assert team.serves == digest(1)
    team.versions[2]["spec"]["approval"] = {"state": "Approved", "by": "ada"}
    team.cluster.touch(team.versions[2], "patch")
    await team.settle()
    team.withdraw(2)
    await team.run(SERVED)
    assert team.serves == digest(2), "the failure before is forgotten"


async def test_a_model_that_changed_meanwhile_is_waited_for() -> None:
    team = Team()
    await team.settle()
    team.withdraw(2)
    await team.run(SERVED)
    team.cluster.refusal = ConflictError(409, "Conflict", "the Model has changed")
    await team.run(MODEL, SERVED)
    assert team.serves == digest(2), "its next run follows at once"
    team.cluster.refusal = None
    await team.settle()
    assert [of_champion(text) for text in team.cluster.published] == [digest(2), digest(1)]


async def test_nothing_waits_longer_for_a_model_that_does_not_run() -> None:
    team = Team()
    await team.settle()
    team.withdraw(2)
    assert await team.run(SERVED) == HOLD_SECONDS
    team.time += HOLD_SECONDS - 1
    assert await team.run(SERVED) == pytest.approx(1)
    assert team.serves == digest(2)
    team.time += 1
    assert await team.run(SERVED) is None
    assert team.serves is None
    team.restart()
    team.time += 100
    await team.settle()
    assert team.serves == digest(1)


async def test_a_model_without_its_status_keeps_what_its_servers_have() -> None:
    team = Team()
    await team.settle()
    team.model["status"] = {}
    team.cluster.touch(team.model, "restore")
    team.restart()
    await team.run(SERVED, MODEL, SERVED)
    assert [of_champion(text) for text in team.cluster.published] == [digest(2)]
