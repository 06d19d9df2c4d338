"""Pods of two containers, one after the other: which of them says how the pod fares."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from support.lives.dataset_life import RESULT, Life

from hone_operator.objects.cache import strip
from hone_operator.reconcile.core import pods
from hone_operator.reconcile.core.failures import root_cause
from hone_operator.reconcile.core.pod_state import read_pod

pytestmark = pytest.mark.pure
INITIALIZING = {"waiting": {"reason": "PodInitializing"}}
DONE = {"terminated": {"exitCode": 0, "finishedAt": "2026-01-02T03:04:05Z", "message": "{}"}}


def slow_start(bodies: list[dict[str, Any]], now: datetime) -> Mapping[str, Any] | None:
    """The body of the pod that is slow to start."""
    state = pods.slow_start([read_pod(body) for body in bodies], now)
    return state and state.body


@pytest.fixture
def life(world) -> Life:
    return Life(world)


def pod(world: Any, reader: dict[str, Any], trainer: dict[str, Any], phase: str = "Pending") -> dict[str, Any]:
    """As the watch gives it, and the cache keeps it. While the first container runs, a pod is Pending."""
    body = world.pod(
        phase=phase,
        initContainerStatuses=[{"name": "mesh", "state": {"running": {}}}, {"name": "reader", "state": reader}],
        containerStatuses=[{"name": "trainer", "state": trainer}],
    )
    return strip("Pod", body)


def test_a_pod_that_reads_is_not_slow_to_start(world):
    assert slow_start([pod(world, {"running": {}}, INITIALIZING)], world.time(3600)) is None
    assert slow_start([pod(world, INITIALIZING, INITIALIZING)], world.time(3600))
    assert slow_start([pod(world, DONE, {"running": {}}, "Running")], world.time(3600)) is None


def test_the_obstacle_of_the_first_container_is_reported(life, conditions):
    life.tick()
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    life.children[-1] = life.world.child(life.children[-1].body, pod(life.world, waiting, INITIALIZING))
    life.tick(5)
    assert conditions(life.status)["Ready"] == "False/ImagePullBackOff"


def test_the_result_is_that_of_the_last_container(life, conditions):
    life.tick()
    ended = life.world.dead(0, outcome={"result": RESULT})
    life.ends("Complete", strip("Pod", ended | {"status": ended["status"] | {"initContainerStatuses": read(DONE)}}))
    life.tick(61)
    assert conditions(life.status)["Ready"] == "True/Materialized"
    assert life.status["rows"] == RESULT["rows"]


def read(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "reader", "state": state}]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ({"exitCode": 137, "reason": "OOMKilled"}, "OutOfMemory"),
        ({"exitCode": 78, "message": '{"failure": {"code": "SourceNotFound", "message": "gone"}}'}, "SourceNotFound"),
        ({"exitCode": 75, "message": '{"failure": {"code": "Interrupted", "message": "SIGTERM"}}'}, "Interrupted"),
        ({"exitCode": 1}, "TrainerError"),
    ],
)
def test_what_ended_the_first_container_is_the_cause(life, state, code):
    life.tick()
    ended = pod(life.world, {"terminated": state}, INITIALIZING, "Failed")
    life.ends("Failed", ended)
    cause = root_cause(life.children[-1])
    assert (cause.code, cause.exit_code) == (code, state["exitCode"])


def test_a_report_of_the_last_container_is_the_cause(life):
    life.tick()
    failure = {"code": "TooManyBadRows", "message": "20 of 70"}
    ended = life.world.dead(65, outcome={"failure": failure, "result": {**RESULT, "digest": None, "path": None}})
    ended["status"]["initContainerStatuses"] = read(DONE)
    life.ends("Failed", strip("Pod", ended))
    assert root_cause(life.children[-1]).code == "TooManyBadRows"
