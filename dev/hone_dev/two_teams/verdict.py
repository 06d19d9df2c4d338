"""What the changes of Workloads, and samples of pods and steps, say about quota and shares. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

FAIR_WITHIN = 0.10
"""Bound on how far the share of a team is from its fair share, as a part of the fair share."""


@dataclass(frozen=True)
class Holding:
    """Who has quota, after one change of a Workload. The API server orders the changes: none is between two of them."""

    time: float
    """Seconds, as the change itself says."""
    held: Mapping[str, int]
    """Jobs with quota, by team."""
    waiting: Mapping[str, int]
    """Jobs that wait for quota, by team."""


@dataclass(frozen=True)
class Sample:
    """Pods and steps, read about once a second."""

    time: float
    """Seconds."""
    pods: int
    """Training pods that are neither finished nor asked to stop."""
    stopping: int
    """Training pods that were asked to stop and still save."""
    steps: Mapping[str, int] = field(default_factory=dict)
    """Last step that each job has reported."""


@dataclass(frozen=True)
class Verdict:
    """The figures."""

    changes: int
    """Of Workloads."""
    samples: int
    """Of pods and steps."""
    seconds: float
    most_held: int
    most_pods: int
    most_stopping: int
    contended_seconds: float
    """Time in which both teams had jobs for more than their fair share of the quota."""
    shares: Mapping[str, float]
    """Share of each team of the quota that was held in this time."""
    lost_steps: Mapping[str, int]
    """Jobs whose reported step went back, and by how much in all."""

    @property
    def unfairness(self) -> float:
        """How far the team furthest from its fair share was from it, as a part of the fair share."""
        fair = 1 / len(self.shares) if self.shares else 1.0
        return max((abs(share - fair) / fair for share in self.shares.values()), default=0.0)


def judge(changes: Sequence[Holding], samples: Sequence[Sample], quota: int) -> Verdict:
    """The figures of a run with quota for so many jobs."""
    teams = sorted({team for each in changes for team in each.held})
    used, contended = dict.fromkeys(teams, 0.0), 0.0
    for each, after in pairwise(changes):
        if not _is_contended(each, teams, quota):
            continue
        seconds = max(0.0, after.time - each.time)
        contended += seconds
        for team in teams:
            used[team] += seconds * each.held.get(team, 0)
    total = sum(used.values())
    return Verdict(
        changes=len(changes),
        samples=len(samples),
        seconds=samples[-1].time - samples[0].time if samples else 0.0,
        most_held=max((sum(each.held.values()) for each in changes), default=0),
        most_pods=max((sample.pods for sample in samples), default=0),
        most_stopping=max((sample.pods + sample.stopping for sample in samples), default=0),
        contended_seconds=contended,
        shares={team: used[team] / total for team in teams} if total else {},
        lost_steps=_lost(samples),
    )


def _is_contended(each: Holding, teams: Sequence[str], quota: int) -> bool:
    fair = quota / max(1, len(teams))
    wanted = {team: each.held.get(team, 0) + each.waiting.get(team, 0) for team in teams}
    return bool(teams) and all(each.waiting.get(team, 0) and wanted[team] >= fair for team in teams)


def _lost(samples: Sequence[Sample]) -> dict[str, int]:
    furthest: dict[str, int] = {}
    lost: dict[str, int] = {}
    for sample in samples:
        for job, step in sample.steps.items():
            if step < furthest.get(job, 0):
                lost[job] = lost.get(job, 0) + furthest[job] - step
            furthest[job] = step
    return lost
