"""What people see of a run in which nothing goes wrong: events without a warning, a reason only while it waits."""

from __future__ import annotations

import pytest
from support.lives.world import World

from hone_api.words.states import Reason

pytestmark = pytest.mark.pure


async def test_a_normal_run_has_no_warning() -> None:
    world = World.new()
    await world.live()
    assert world.job["status"]["phase"] == "Succeeded"
    events = [(e["regarding"]["kind"], e["type"], e["reason"]) for e in world.cluster.of("Event")]
    assert {type_ for _, type_, _ in events} == {"Normal"}
    assert [e for e in events if e[0] == "FineTuneJob"] == [
        ("FineTuneJob", "Normal", "DatasetNotReady"),
        ("FineTuneJob", "Normal", "Advice"),
        ("FineTuneJob", "Normal", "Started"),
        ("FineTuneJob", "Normal", "Succeeded"),
    ]


async def test_a_reason_is_shown_only_where_the_phase_does_not_say_it() -> None:
    world = World.new()
    shown = []
    for _ in range(12):
        await world.live(1)
        status = world.job["status"]
        shown.append((status["phase"], status.get("reason", "")))
    assert list(dict.fromkeys(shown)) == [
        ("Preparing", "DatasetNotReady"),
        ("Starting", ""),
        ("Running", ""),
        ("Succeeded", ""),
    ]


async def test_what_a_person_needs_first_comes_first() -> None:
    world = World.new()
    await world.live(1)
    for body in (world.job, *world.cluster.of("Dataset")):
        assert [c["type"] for c in body["status"]["conditions"]][:3] == ["Ready", "Stalled", "Reconciling"]


async def test_of_the_conditions_for_tools_only_the_one_that_is_true_repeats_the_message() -> None:
    world = World.new()
    for _ in range(12):
        await world.live(1)
        for body in (world.job, *world.cluster.of("Dataset"), *world.cluster.of("ModelVersion")):
            for condition in body["status"]["conditions"]:
                if condition["type"] in ("Stalled", "Reconciling", "Finished") and condition["status"] == "False":
                    assert condition["message"] == Reason(condition["reason"]).when, condition
