"""The verdict on two teams: quota, shares, steps."""

from __future__ import annotations

from typing import Any

import pytest

from hone_dev.two_teams import objects
from hone_dev.two_teams.command import Outcome
from hone_dev.two_teams.verdict import Holding, Sample, judge
from hone_dev.two_teams.watching import Workloads

pytestmark = pytest.mark.pure


def held(time: float, research: int, support: int, waits: int = 1) -> Holding:
    waiting = {"research": waits, "support": waits}
    return Holding(time, {"research": research, "support": support}, waiting)


def workload(team: str, name: str, version: int, quota: bool, second: int, **conditions: str) -> dict[str, Any]:
    at = f"2026-11-27T10:00:{second:02}Z"
    found = [{"type": "QuotaReserved", "status": str(quota), "reason": "", "lastTransitionTime": at}]
    found += [
        {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": at}
        for kind, reason in conditions.items()
    ]
    meta = {
        "namespace": objects.namespace_of(team),
        "name": name,
        "resourceVersion": str(version),
        "creationTimestamp": "2026-11-27T10:00:00Z",
    }
    return {"metadata": meta, "status": {"conditions": found}, "deleted": False}


def test_shares_count_only_while_both_wait() -> None:
    changes = [
        held(0, 4, 0, waits=0),
        held(50, 3, 1),
        held(60, 2, 2),
        held(90, 0, 4, waits=0),
        held(200, 0, 0, waits=0),
    ]
    verdict = judge(changes, [], quota=4)
    assert verdict.contended_seconds == 40
    assert verdict.shares == {"research": 90 / 160, "support": 70 / 160}
    assert verdict.unfairness == pytest.approx(0.125)


def test_quota_and_steps_are_judged_at_every_change() -> None:
    changes = [held(0, 1, 1), held(1, 3, 2), held(2, 2, 2)]
    samples = [Sample(0, 4, 0, {"a": 5}), Sample(1, 4, 2, {"a": 9, "b": 2}), Sample(2, 5, 0, {"a": 7, "b": 2})]
    verdict = judge(changes, samples, quota=4)
    assert (verdict.most_held, verdict.most_pods, verdict.most_stopping) == (5, 5, 6)
    assert verdict.lost_steps == {"a": 2}


def test_workloads_are_counted_change_by_change() -> None:
    seen = Workloads()
    seen.see(
        [
            workload("research", "a", 1, True, 1),
            workload("support", "b", 2, False, 2),
            workload("research", "a", 3, False, 3, Preempted="InCohortFairSharing"),
            workload("support", "b", 4, True, 4),
            workload("research", "a", 5, False, 3),
            workload("support", "b", 6, True, 9, Finished="Succeeded"),
        ]
    )
    assert [sum(each.held.values()) for each in seen.changes] == [1, 1, 0, 1, 1, 0]
    assert [sum(each.waiting.values()) for each in seen.changes] == [0, 1, 2, 1, 1, 1]
    assert [each.time - seen.changes[0].time for each in seen.changes] == [0, 1, 2, 3, 3, 8]
    assert seen.version == "6"
    assert {reason for _, _, reason in seen.preempted} == {"InCohortFairSharing"}


def test_what_is_wrong_is_named() -> None:
    outcome = Outcome(jobs=2, quota=1, kueue=True)
    outcome.workloads.changes = [held(0, 1, 1), held(5, 0, 1)]
    outcome.ends.update({"Succeeded": 1})
    outcome.wrong_steps = {"a": 3}
    words = "\n".join(outcome.problems())
    for each in ("not all 2 jobs succeeded", "steps were lost: {'a': 3}", "2 jobs had quota", "no job was preempted"):
        assert each in words
    assert "the shares are" not in words  # by a tenth of the fair share at most
    assert len(Outcome(jobs=0, quota=1, kueue=False).problems()) == 0


def test_every_team_has_its_jobs_and_the_first_are_long() -> None:
    jobs = objects.wanted(30, 4)
    assert [sum(each.team == team for each in jobs) for team in objects.TEAMS] == [15, 15]
    assert sum(each.urgent for each in jobs) == 3
    assert [each.name for each in jobs if each.steps == objects.STEPS.long] == [f"research-{n}" for n in range(1, 5)]
    assert len({each.name for each in jobs}) == 30
