"""`python -m hone_dev restart`: kill the rank of a run on a real pod; say how long it takes until it trains again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from hone_dev.ettr import mix
from hone_dev.ettr.interrupted import interrupted_run
from hone_dev.tools.console import console, step

BOUND = 60.0
"""Seconds from the fault to the next step, for a model of 135M on a machine that does nothing else."""


@dataclass(frozen=True)
class Restart:
    """Seconds from a fault to the next step, and what status.attempts[].phaseSeconds has of them."""

    seconds: float
    phases: Mapping[str, Any]

    @property
    def other(self) -> float:
        """Seconds in no phase: until the fault is found, the pause before the attempt, and the report of the step."""
        return self.seconds - sum(float(spent) for spent in self.phases.values())


def run(times: int) -> bool:
    """Kill the rank so often and print the figures; whether each restart keeps the bound."""
    restarts = []
    with interrupted_run(nodes=1) as training:
        for _ in range(times):
            with step(f"{mix.KILLED}: from here to the next step"):
                seconds = training.interrupt(mix.KILLED)
            phases = dict(training.status()["attempts"][-1]["phaseSeconds"])
            phases.pop("training")  # comes after the first step
            restarts.append(Restart(seconds, phases))
    show(restarts)
    return all(restart.seconds <= BOUND for restart in restarts)


def show(restarts: Sequence[Restart]) -> None:
    """Print a column for each restart, and a row for each phase."""
    table = Table("Seconds", *(f"restart {number}" for number, _ in enumerate(restarts, 1)))
    for phase in dict.fromkeys(phase for restart in restarts for phase in restart.phases):
        table.add_row(phase, *(str(restart.phases.get(phase, "")) for restart in restarts))
    table.add_row("before and between", *(f"{restart.other:.0f}" for restart in restarts))
    table.add_row(f"together (bound {BOUND:.0f})", *(f"{restart.seconds:.0f}" for restart in restarts), style="bold")
    console.print(table)
