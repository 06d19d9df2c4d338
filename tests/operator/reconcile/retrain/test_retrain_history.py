"""Which finished jobs of a Model the history limits delete, and which stay whatever the limits say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.lives.retraining import World

from hone_api.blocks.retrain import Retrain
from hone_operator.reconcile.retrain.retrain_history import parents, surplus

pytestmark = pytest.mark.pure


def test_without_limits_every_job_stays() -> None:
    world = World()
    names = [world.repeat(content) for content in range(2, 7)]
    assert world.made() == names


def test_the_newest_of_each_ending_stay() -> None:
    world = World(successfulJobsHistoryLimit=2, failedJobsHistoryLimit=1)
    good = [world.repeat(content) for content in (2, 3)]
    bad = [world.repeat(content, "Failed") for content in (4, 5)]
    good += [world.repeat(content) for content in (6, 7)]
    assert world.made() == [bad[1], *good[2:]]
    assert "first" in world.jobs, "the operator did not create it"


def test_a_deletion_is_announced() -> None:
    world = World(successfulJobsHistoryLimit=1)
    name = world.repeat(2)
    world.repeat(3)
    world.model["spec"]["retrain"]["successfulJobsHistoryLimit"] = None
    second = world.repeat(4)
    world.model["spec"]["retrain"]["successfulJobsHistoryLimit"] = 1
    outcome = world.tick()
    assert [event.reason for event in outcome.events] == ["JobExpired"]
    assert world.made() == [second]
    assert name not in world.jobs


@pytest.mark.parametrize("how", ["Succeeded", "Failed"])
def test_the_job_on_the_present_rows_stays(how: str) -> None:
    """Without it, a failed job would be repeated on the same rows without end."""
    world = World(successfulJobsHistoryLimit=0, failedJobsHistoryLimit=0)
    name = world.repeat(2, how)
    for _ in range(3):
        world.tick()
    assert world.made() == [name]
    following = world.repeat(3)
    assert world.made() == [following]


def test_the_repeated_job_and_parents_stay() -> None:
    world = World(successfulJobsHistoryLimit=0)
    parent = world.repeat(2)
    world.parents = frozenset({parent})
    newest = world.repeat(3)
    assert world.made() == [parent, newest]
    world.parents = frozenset()
    world.tick()
    assert world.made() == [newest]


def test_parents_are_those_of_unfinished_jobs_and_of_jobs_that_a_model_repeats() -> None:
    world = World()
    for name in ("begins", "ended", "repeated"):
        world.add(name)
        world.jobs[name]["spec"] = {"model": {"fineTuneJob": f"before-{name}"}}
    world.end("ended", "Succeeded")
    world.end("repeated", "Succeeded")
    world.model["spec"]["retrain"]["fineTuneJob"] = "repeated"
    aliases_only = {"kind": "Model", "metadata": {"name": "other"}, "spec": {}}
    assert parents(world.jobs.values(), [aliases_only, world.model]) == {"before-begins", "before-repeated"}


def test_deleting_a_job_does_not_refill_the_budget() -> None:
    world = World(successfulJobsHistoryLimit=0, gpuHoursPerMonth=1000)
    first, second = world.repeat(2), world.repeat(3)
    assert world.made() == [first, second]
    assert world.model["status"]["retrain"]["gpuSeconds"] == 2 * 8 * 3600
    month = datetime(2026, 2, 1, tzinfo=UTC)
    assert world.tick().check_again_in == (month - world.now).total_seconds()
    world.tick(month - world.now)
    assert world.made() == [second]


@pytest.mark.parametrize("newest", ["a", "b"])
def test_of_two_jobs_of_one_second_the_one_that_is_needed_stays(newest: str) -> None:
    """Names are digests: either may come first."""
    conditions = [{"type": type_, "status": "True"} for type_ in ("Finished", "Succeeded")]
    created = {"creationTimestamp": "2026-11-28T12:16:24Z"}
    own = [{"metadata": {"name": name, **created}, "status": {"conditions": conditions}} for name in "ab"]
    limits = Retrain.model_validate({"fineTuneJob": "run", "successfulJobsHistoryLimit": 1})
    old = surplus(limits, own, {newest}, datetime(2026, 11, 28, 13, tzinfo=UTC))
    assert [job["metadata"]["name"] for job in old.delete] == ["b" if newest == "a" else "a"]
