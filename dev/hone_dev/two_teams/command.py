"""`python -m hone_dev two-teams`: two teams queue jobs for a small quota of Kueue on real pods, and are watched."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from hone_api.words.states import JobPhase
from hone_dev.cluster import cluster
from hone_dev.demo.command import install
from hone_dev.demo.targets import Target, embedded
from hone_dev.models import models
from hone_dev.tools.console import HoneDevError, console, note, step
from hone_dev.two_teams import objects
from hone_dev.two_teams.verdict import FAIR_WITHIN, Sample, Verdict, judge
from hone_dev.two_teams.watching import Teams, Workloads, ended, sample, trained_again

HANG = 3 * 3600.0
"""Seconds; a guard against hanging, not an expectation."""
MODEL = "two-teams"


@dataclass
class Outcome:
    """What was seen until all jobs had ended."""

    jobs: int
    quota: int
    kueue: bool
    samples: list[Sample] = field(default_factory=list)
    workloads: Workloads = field(default_factory=Workloads)
    ends: Counter[str] = field(default_factory=Counter)
    wrong_steps: dict[str, int] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        return judge(self.workloads.changes, self.samples, self.quota)

    def problems(self, fair: bool = True) -> list[str]:
        """What is not as it should be.

        Args:
            fair: whether to check the shares too; they are about many jobs.
        """
        verdict, out = self.verdict, []
        if self.ends[JobPhase.SUCCEEDED] != self.jobs:
            out.append(f"not all {self.jobs} jobs succeeded: {dict(self.ends)}")
        if self.wrong_steps or verdict.lost_steps:
            out.append(f"steps were lost: {self.wrong_steps or verdict.lost_steps}")
        if not self.kueue:
            return out
        if verdict.most_held > self.quota or verdict.most_pods > self.quota:
            out.append(f"{verdict.most_held} jobs had quota and {verdict.most_pods} pods, of {self.quota}")
        if not self.workloads.preempted:
            out.append("no job was preempted")
        if fair and (not verdict.contended_seconds or verdict.unfairness > FAIR_WITHIN):
            out.append(f"the shares are {verdict.shares} over {verdict.contended_seconds:.0f} s")
        return out


def measure(target: Target, jobs: int, quota: int, kueue: bool = True, steps: objects.Steps = objects.STEPS) -> Outcome:
    """Run the jobs of both teams in a cluster that has Hone, and Kueue if there are to be queues.

    Research comes first and takes all of the quota; support comes when a job of research has made a step, and urgent
    jobs of research when support has quota.

    Raises:
        HoneDevError: if the jobs do not end within `HANG`.
    """
    _remove(target)
    outcome = Outcome(jobs, quota, kueue)
    folder = models.tiny(models.hub_root() / "models" / "hone-tests" / MODEL / "main").parent
    try:
        _queue_and_watch(target, outcome, steps)
    finally:
        shutil.rmtree(folder)
        _remove(target)
    return outcome


def _queue_and_watch(target: Target, outcome: Outcome, steps: objects.Steps) -> None:
    assert target.kubeconfig
    _apply(target, objects.namespaces())
    if outcome.kueue:
        _apply(target, objects.queues(outcome.quota))
    for team in objects.TEAMS:
        _apply(target, objects.rows(team))
    teams, wanted = Teams(target.kubeconfig), objects.wanted(outcome.jobs, outcome.quota, steps)
    research = [each for each in wanted if each.team == objects.TEAMS[0]]
    support = [each for each in wanted if each not in research]
    plan: list[tuple[Callable[[], bool], list[objects.Wanted]]] = [
        (lambda: True, [each for each in research if not each.urgent]),
        (lambda: bool(outcome.samples[-1].steps), support),
        (lambda: _has_quota(outcome, objects.TEAMS[1]), [each for each in research if each.urgent]),
    ]
    started = time.monotonic()
    while outcome.ends.total() < outcome.jobs:
        now = time.monotonic() - started
        if now > HANG:
            raise HoneDevError(f"{outcome.ends.total()} of {outcome.jobs} jobs ended within {HANG:.0f} s")
        found = teams.jobs()
        outcome.samples.append(sample(now, found, teams.pods()))
        outcome.ends, outcome.wrong_steps = ended(found), trained_again(found)
        if plan and plan[0][0]():
            _apply(target, (each.manifest(f"hf://hone-tests/{MODEL}") for each in plan.pop(0)[1]))
        if outcome.kueue:
            outcome.workloads.see(teams.workloads(outcome.workloads.version))  # for a second
        else:
            time.sleep(1)


def _has_quota(outcome: Outcome, team: str) -> bool:
    changes = outcome.workloads.changes
    return not outcome.kueue or bool(changes and changes[-1].held[team])


def _apply(target: Target, bodies: Iterable[dict[str, Any]]) -> None:
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(bodies)})
    target.kubectl("apply", "--server-side", "--filename=-", stdin=document)


def _remove(target: Target) -> None:
    """What a run leaves in the cluster."""
    names = [objects.namespace_of(team) for team in objects.TEAMS]
    target.kubectl("delete", "namespace", *names, "--ignore-not-found", "--timeout=600s")
    target.kubectl("delete", "priorityclass", objects.URGENT, "--ignore-not-found")
    if target.kubectl("get", "crd", "clusterqueues.kueue.x-k8s.io", "--ignore-not-found"):
        target.kubectl("delete", "clusterqueue", *names, "two-teams-spare", "--ignore-not-found", "--timeout=600s")
        target.kubectl("delete", "resourceflavor", objects.FLAVOR, "--ignore-not-found", "--timeout=600s")


def measured(jobs: int, quota: int, kueue: bool = True, steps: objects.Steps = objects.STEPS) -> Outcome:
    """Both teams on the embedded cluster, which this starts with its hub and the chart where they are not there."""
    cluster.up(addons=["kueue"] if kueue else [])
    target = embedded()
    target.values["kueue"] = {"enabled": kueue}
    install(target)
    with step(f"{jobs} jobs of two teams, {quota} at a time" if kueue else f"{jobs} jobs of two teams, without Kueue"):
        return measure(target, jobs, quota, kueue, steps)


def run(jobs: int, quota: int, kueue: bool) -> bool:
    """Measure on the embedded cluster and print the figures; whether all is as it should be."""
    outcome = measured(jobs, quota, kueue)
    show(outcome)
    for problem in (problems := outcome.problems()):
        note(problem)
    return not problems


def show(outcome: Outcome) -> None:
    """Print the figures."""
    verdict, table = outcome.verdict, Table("Figure", "Value")
    table.add_row("jobs that ended", ", ".join(f"{count} {phase}" for phase, count in outcome.ends.items()))
    seen = f"{verdict.changes} changes of Workloads, {verdict.samples} samples of pods and steps"
    table.add_row("seen", f"{seen} in {verdict.seconds:.0f} s")
    if outcome.kueue:
        table.add_row("most jobs with quota at a time", f"{verdict.most_held} of {outcome.quota}")
        table.add_row("most pods at a time", f"{verdict.most_pods}; with those that save: {verdict.most_stopping}")
        counted = Counter(reason for _, _, reason in outcome.workloads.preempted)
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counted.items()))
        table.add_row("preemptions", reasons or "none")
        shares = ", ".join(f"{team} {share:.1%}" for team, share in verdict.shares.items())
        table.add_row("shares while both had jobs waiting", f"{shares} of {verdict.contended_seconds:.0f} s")
    table.add_row("steps trained again or missing", str(outcome.wrong_steps or verdict.lost_steps or 0))
    console.print(table)
