"""`python -m hone_dev ettr`: interrupt a run on real pods in each way; say what that costs at the rate of Llama 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from hone_dev.ettr import mix
from hone_dev.ettr.faults import INTERRUPT
from hone_dev.ettr.interrupted import EVERY, HANG_TIMEOUT, InterruptedRun, interrupted_run
from hone_dev.tools.console import console, note, step

NODES = 2
WANTED = 0.97
"""The least share of its time that a run should spend in steps that count."""
SIZES, LARGER = (8, 64, 512), (4096, mix.GPUS)
"""GPUs of a run: as many as Hone's users have, which have to reach it; and more, for comparison."""
DEFAULT_HANG_TIMEOUT = 600
"""Seconds that a step may take where a job does not say, which the figures count."""


def run(times: int) -> bool:
    """Interrupt the run `times` times in each way and print the figures; whether the share is as wanted."""
    with interrupted_run(NODES) as training:
        costs, save = measure(training, times)
    return show(costs, save)


def measure(training: InterruptedRun, times: int) -> tuple[dict[str, float], float]:
    """Seconds from each kind of interruption to the next step (the mean), and for which a checkpoint stops the run."""
    seconds: dict[str, list[float]] = {kind: [] for kind in INTERRUPT}
    for _ in range(times):
        for kind in INTERRUPT:
            with step(f"{kind}: from here to the next step"):
                seconds[kind].append(training.interrupt(kind))
    costs = {kind: sum(each) / len(each) for kind, each in seconds.items()}
    costs[mix.HUNG] += DEFAULT_HANG_TIMEOUT - HANG_TIMEOUT
    return costs, _saving(training.status())


def _saving(status: Mapping[str, Any]) -> float:
    """Seconds for one checkpoint, over all attempts."""
    attempts = status["attempts"][:-1]
    saved = sum((each["endStep"] - each["startStep"]) // EVERY for each in attempts)
    seconds = sum((each.get("phaseSeconds") or {}).get("saving", 0) for each in attempts)
    return float(seconds / max(1, saved))


def show(costs: Mapping[str, float], save: float) -> bool:
    """Print the figures; whether runs of all `SIZES` reach `WANTED`."""
    table = Table("Interruption", "Of 419 for Llama 3", "Seconds to the next step")
    for kind, what in mix.KINDS.items():
        table.add_row(kind, f"{what.count}: {what.causes}", f"{costs[kind]:.0f}")
    console.print(table)
    note(f"a checkpoint stops the run for {save:.1f} s")
    table = Table("GPUs", "Hours between interruptions", "Minutes between checkpoints", "ETTR")
    reached = True
    for gpus in (*SIZES, *LARGER):
        result = mix.run(gpus, costs, save)
        reached &= gpus in LARGER or result.ratio >= WANTED
        table.add_row(
            f"{gpus:,}", f"{result.between / 3600:,.1f}", f"{result.interval / 60:,.1f}", f"{result.ratio:.2%}"
        )
    console.print(table)
    return reached
