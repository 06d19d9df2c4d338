"""Which rank computes more slowly than the others, although all of them end a step together.

Each step ends with a collective, so the fastest rank waits for the slowest one, and the time of a step is the same for
all. The forward passes before it need no other rank unless weights are sharded (ZeRO-3): their time (`forward`) is the
rank's own.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone_trainer import ranks

if TYPE_CHECKING:
    from hone_trainer.training.loop import Run

WINDOW = 20
"""Steps whose times are added up before the ranks compare them."""
SLOW = 1.3
"""A rank that takes this many times as long as the others is a straggler."""
IN_A_ROW = 3
"""Windows after which a straggler is reported: a single one may have had longer rows."""


@dataclass(frozen=True)
class Slowest:
    """The slowest rank of a window."""

    rank: int
    ratio: float
    """Its seconds over the median of all other ranks."""


def slowest(seconds: Sequence[float]) -> Slowest | None:
    """The slowest of several ranks; None if a rank has no time. Pure.

    Args:
        seconds: of the forward passes, by rank; at least two.
    """
    rank = max(range(len(seconds)), key=seconds.__getitem__)
    others = statistics.median(s for number, s in enumerate(seconds) if number != rank)
    return Slowest(rank, seconds[rank] / others) if others > 0 else None


class Stragglers(TrainerCallback):
    """Compares the ranks every `WINDOW` steps, and names one that is slow in several windows."""

    def __init__(self, run: Run) -> None:
        self._run, self._steps = run, 0
        self._row: list[int] = []
        """Stragglers of the last windows, as long as it is the same rank."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._steps += 1
        if self._run.forward is None or self._steps % WINDOW:
            return
        mine = self._run.forward.take()
        by_rank = ranks.add_up([mine if rank == ranks.rank() else 0.0 for rank in range(ranks.world_size())])
        if (last := slowest(by_rank)) is not None and ranks.is_first():
            self.compared(last)

    def compared(self, last: Slowest) -> None:
        """Report the slowest rank of a window, and say so once if it is a straggler."""
        self._run.reporters.note(slowest_rank=last.rank, slowest_rank_ratio=last.ratio)
        same = last.ratio >= SLOW and self._row[-1:] in ([], [last.rank])
        self._row = [*self._row, last.rank] if same else [last.rank] * (last.ratio >= SLOW)
        if len(self._row) == IN_A_ROW:
            sentence = self._in_words(last)
            self._run.reporters.log(sentence)
            self._run.advice.append(sentence)

    def _in_words(self, last: Slowest) -> str:
        plan = self._run.plan
        node, place = divmod(last.rank, plan.processes_per_node)
        return (
            f"rank {last.rank} (node {node}, process {place}) takes {last.ratio:.1f} times as long as the others for a "
            "forward pass, and all wait for it: look at the clock, temperature and errors of its GPU, and at what else "
            "runs on its node."
        )
