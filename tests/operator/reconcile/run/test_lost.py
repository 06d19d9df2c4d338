"""What others take away from under a run: mounts that fail, a plan or a Service that somebody deleted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from hone_api.kinds.finetunejob_status import JobProgress
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.core import pods
from hone_operator.reconcile.core.pod_state import read_pod
from hone_operator.reconcile.core.pods import unmounted

pytestmark = pytest.mark.pure
WORDS = 'MountVolume.SetUp failed for volume "store": no such server'


def slow_start(bodies: list[dict[str, Any]], now: datetime) -> Mapping[str, Any] | None:
    """The body of the pod that is slow to start."""
    state = pods.slow_start([read_pod(body) for body in bodies], now)
    return state and state.body


def mounting(world):
    return world.pod(phase="Pending")


def test_a_pod_without_a_container_is_asked_about_after_a_while(world):
    pod = mounting(world)
    assert slow_start([pod], world.time(19)) is None
    assert slow_start([pod], world.time(20)) is pod
    assert slow_start([world.waiting("ContainerCreating")], world.time(20))
    for other in (world.pod(), world.dead(0), world.unscheduled(), world.waiting("ErrImagePull")):
        assert slow_start([other], world.time(3600)) is None


def test_no_news_comes_of_a_pod_that_mounts_so_it_is_looked_at_again(life):
    life.tick()
    life.pods(mounting(life.world))
    assert life.tick(1).check_again_in == 15
    life.pods(life.world.pod())
    assert life.tick(5).check_again_in is None


def test_a_mount_that_fails_is_reported_in_the_kubelets_words_and_is_final_in_the_end(life, conditions):
    life.tick()
    pod = mounting(life.world)
    stuck = unmounted(read_pod(pod), "FailedMount", WORDS)
    life.children[-1] = life.world.child(life.children[-1].body, pod, stuck=stuck)
    outcome = life.tick(30)
    assert conditions(life.status)["Running"] == "False/FailedMount"
    assert conditions(life.status)["Admitted"] == "True/Scheduled"
    assert [(e.reason, e.message) for e in outcome.events] == [("FailedMount", f"Pod run-1-0-abcde: {WORDS}")]
    life.tick(901)
    assert life.status["failure"]["code"] == "CreateContainerFailed"
    assert WORDS in life.status["failure"]["message"]


def test_a_job_that_has_lost_its_plan_is_made_again(life):
    life.tick()
    pod = mounting(life.world)
    stuck = unmounted(read_pod(pod), "FailedMount", 'configmap "run-1-abc" not found')
    life.children[-1] = life.world.child(life.children[-1].body, pod, stuck=stuck, plan_lost=True)
    outcome = life.tick(30)
    assert [b["metadata"]["name"] for b in outcome.delete] == ["run-1"]
    assert "PlanLost" in [e.reason for e in outcome.events]
    outcome = life.tick(31, stopping=0)
    assert [b["metadata"]["name"] for b in outcome.create if b["kind"] == "Job"] == ["run-2"]


def test_a_lost_service_or_policy_is_made_again_as_it_was(new_life):
    life = new_life(resources={"nodes": 2})
    before = tuple(b for b in life.tick().create if b["kind"] in ("NetworkPolicy", "Service"))
    life.pods(life.world.pod(0), life.world.pod(1))
    outcome = life.tick(5, network_lost=True)
    assert len(before) == 2
    assert outcome.create == before
    assert outcome.delete == ()


def test_service_and_policy_of_an_attempt_go_with_its_end(new_life):
    life = new_life(resources={"nodes": 2})
    made = [b for b in life.tick().create if b["kind"] in ("NetworkPolicy", "Service")]
    life.ends("Failed", life.world.dead(137))
    outcome = life.tick(61, network_left=made)
    assert list(outcome.delete) == made


def test_ranks_that_train_are_looked_at_less_often_than_those_that_may_wait(new_life):
    life = new_life(resources={"nodes": 2})
    life.tick()
    life.pods(life.world.pod(0), life.world.pod(1))
    assert life.tick(5).check_again_in == 15
    life.report = Latest(attempt=1, progress=JobProgress(step=1), received=life.world.time(10))
    assert life.tick(10).check_again_in == 300
