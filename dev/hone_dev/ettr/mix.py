"""The interruptions of Llama 3, and what is left of a run's time at that rate.

"The Llama 3 Herd of Models" (2024), table 5: 419 unexpected interruptions in 54 days on 16,384 GPUs. Host maintenance
is in there; the 47 interruptions that were planned are not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

GPUS, DAYS = 16_384, 54
GPU_SECONDS = GPUS * DAYS * 86_400.0


@dataclass(frozen=True)
class Kind:
    """Interruptions that a run meets in the same way."""

    count: int
    causes: str
    notice: bool = False
    """Whether the run can save a checkpoint first."""


KILLED, NODE, EVICTED, HUNG = "rank killed", "node lost", "evicted", "rank stopped"
KINDS: Mapping[str, Kind] = {
    KILLED: Kind(322, "GPU 148, its memory 72, SRAM 19, processor 17 or cooling 6; software 54; silent corruption 6"),
    NODE: Kind(
        58, "network 35, network card 7, disk 3, power 3, chassis 2, I/O board 2, CPU 2, memory 2, dependencies 2"
    ),
    EVICTED: Kind(32, "maintenance of a host", notice=True),
    HUNG: Kind(7, "timeouts of NCCL's watchdog"),
}
"""By what is done here in their place."""


@dataclass(frozen=True)
class Run:
    """A run at that rate; times in seconds."""

    between: float
    """Interruptions are so far apart, on average."""
    interval: float
    """Between checkpoints: the one that costs the least (Young 1974)."""
    ratio: float
    """Share of the time that is in steps that count (ETTR)."""


def run(gpus: int, costs: Mapping[str, float], save: float) -> Run:
    """What a run on so many GPUs would come to.

    Args:
        gpus: of the run.
        costs: seconds from an interruption of each kind of `KINDS` to the next step; steps that are trained again are
            added here.
        save: seconds for which a checkpoint stops the run.
    """
    rates = {name: gpus * kind.count / GPU_SECONDS for name, kind in KINDS.items()}
    between = 1 / sum(rates.values())
    interval = math.sqrt(2 * max(save, 1e-3) * between)
    lost = sum(rate * (costs[name] + (0 if KINDS[name].notice else interval / 2)) for name, rate in rates.items())
    return Run(between, interval, 1 / (1 + lost + save / interval))
