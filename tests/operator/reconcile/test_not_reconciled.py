"""An error of the operator is seen on the object, once, without what is private; it goes when the cause does."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from support.cluster.platforms import platform_with

from hone_operator.apiserver.errors import RefusedError
from hone_operator.controllers import Controllers
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import Key
from hone_operator.reconcile.core.notreconciled import internal_error, status_refused

pytestmark = pytest.mark.pure
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SPECS = {
    "FineTuneJob": {"model": {"uri": "pvc://m/x"}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}},
    "Dataset": {"source": {"uri": "pvc://data/rows.jsonl"}, "suspend": True},
}


def body(kind: str, **status: Any) -> dict[str, Any]:
    meta = {"namespace": "team", "name": "x", "uid": "u", "resourceVersion": "1", "generation": 1}
    return {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": SPECS[kind], "status": status}


def conditions(status: Any) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


@dataclass
class Api:
    """Takes statuses; may refuse those that hold a word."""

    refuses: str = ""
    statuses: list[Any] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    async def get(self, *_: Any) -> None:
        return None

    async def list(self, *_: Any, **__: Any) -> list[Any]:
        return []

    async def create(self, made: Any, brief: bool = False) -> Any:
        if made["kind"] == "Event":
            self.events.append(made["reason"])
        return {**made, "metadata": {**made["metadata"], "uid": "n", "resourceVersion": "5"}}

    async def apply_status(self, kind: str, owner: Any, status: Any) -> Any:
        if self.refuses and self.refuses in str(status):
            raise RefusedError(422, "Invalid", "status.progress.step: too large")
        self.statuses.append(status)
        version = str(int(owner["metadata"]["resourceVersion"]) + 1)
        return {**owner, "metadata": {**owner["metadata"], "resourceVersion": version}, "status": status}


ROOMS = {"Dataset": "dataset", "FineTuneJob": "run"}


def controllers(api: Api, kind: str) -> Controllers:
    cache = Cache()
    cache.put(kind, body(kind))
    return Controllers(api, cache, platform_with("trainer:1"), now=lambda: NOW)


@pytest.mark.parametrize("kind", sorted(SPECS))
async def test_an_error_is_a_condition_an_event_and_a_number_and_recovers(kind: str, monkeypatch: Any) -> None:
    api, counted = Api(), []
    run = controllers(api, kind)
    run.on_internal_error = lambda key, error: counted.append(type(error).__name__)

    def broken(*_: Any) -> Any:
        raise ArithmeticError("conversion of 2097152Ki\nfailed; token=hunter2 at https://me:pw@host/")

    with monkeypatch.context() as patch:
        patch.setattr(f"hone_operator.reconcile.{ROOMS[kind]}.{kind.lower()}.reconcile", broken)
        for _ in range(3):
            with pytest.raises(ArithmeticError):
                await run.process(Key(kind, "team", "x"))
    (status,) = api.statuses
    assert conditions(status)["Reconciling"] == ("True", "InternalError")
    assert conditions(status)["Ready"] == ("False", "InternalError")
    (message,) = {c["message"] for c in status["conditions"]}
    assert "ArithmeticError: conversion of 2097152Ki failed" in message
    assert "hunter2" not in message
    assert "pw@" not in message
    assert api.events == ["InternalError"]
    assert counted == ["ArithmeticError"] * 3
    await run.process(Key(kind, "team", "x"))
    assert "InternalError" not in str(api.statuses[-1])


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Succeeded", "conditions": [{"type": "Finished", "status": "True", "reason": "Succeeded"}]},
    ],
)
def test_what_was_true_stays_and_the_trouble_goes_also_after_the_end(status: dict[str, Any]) -> None:
    ready = {"type": "Ready", "status": "True", "reason": "Succeeded", "message": "made"}
    before = [
        {**c, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"} for c in (*status["conditions"], ready)
    ]
    job = body("FineTuneJob", **{**status, "conditions": before})
    outcome = internal_error(job, NOW, KeyError("x" * 9000))
    assert outcome.status is not None
    assert conditions(outcome.status)["Ready"] == ("True", "Succeeded")
    assert conditions(outcome.status)["Reconciling"] == ("True", "InternalError")
    assert max(len(c["message"]) for c in outcome.status["conditions"]) < 600
    job["status"] = outcome.status
    assert internal_error(job, NOW, KeyError("x" * 9000)).status is None
    assert status_refused(job, NOW, "words").status is not None


async def test_a_refused_status_is_seen_on_the_object() -> None:
    api, counted = Api(refuses="DatasetNotFound"), []
    run = controllers(api, "FineTuneJob")
    run.on_refused_status = counted.append
    for _ in range(3):
        with pytest.raises(RefusedError):
            await run.process(Key("FineTuneJob", "team", "x"))
    (status,) = api.statuses
    assert conditions(status)["Reconciling"] == ("True", "StatusRefused")
    assert "status.progress.step: too large" in str(status)
    assert api.events == ["StatusRefused"]
    assert len(counted) == 3
    api.refuses = ""
    await run.process(Key("FineTuneJob", "team", "x"))
    assert "StatusRefused" not in str(api.statuses[-1])


async def test_the_log_names_each_change_of_phase_once(caplog: Any) -> None:
    api = Api()
    run, key = controllers(api, "FineTuneJob"), Key("FineTuneJob", "team", "x")
    with caplog.at_level("INFO", "hone_operator"):
        await run.process(key)
        await run.process(key)
        suspended = body("FineTuneJob", **api.statuses[-1])
        suspended["spec"] = {**SPECS["FineTuneJob"], "suspend": True}
        run.cache.put("FineTuneJob", {**suspended, "metadata": {**suspended["metadata"], "resourceVersion": "9"}})
        await run.process(key)
    told = [record.getMessage() for record in caplog.records if ", before " in record.getMessage()]
    assert told == ["FineTuneJob team/x: Pending, before new", "FineTuneJob team/x: Suspended, before Pending"]
