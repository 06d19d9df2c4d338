"""How long a step may take before the run counts as hung. The process that watches the ranks acts on it (`run/hangs`).

Guarded are the steps and what comes between them. Before the first step and after the last one there is no limit: how
long a model loads or a benchmark takes is unknown, and a rank that dies there ends the others by itself.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone_api.words.phases import EVALUATING, FIRST_STEP, SAVING, TRAINING

if TYPE_CHECKING:
    from hone_trainer.training.loop import Run

MEDIANS = 20
"""A step may take this many times the median of the last steps: samples of one step can be much longer than others."""
SHORTEST = 600.0
"""Seconds that any step may take: it may wait for an unreachable judge or teacher, or for a slow store."""
LONGEST_PAUSE = 3600.0
"""Seconds for the first step (kernels are compiled), a checkpoint, and between two batches of an evaluation."""
REMEMBERED = 100
"""The median is taken of this many last steps."""
ENOUGH = 3
"""Steps after which a median says something."""
GENEROUS = frozenset({FIRST_STEP, EVALUATING, SAVING})


def limit(phase: str, seconds: list[float], asked: float | None) -> float:
    """Seconds until the next sign of life at most; 0: no limit. Pure.

    Args:
        phase: of `hone_api.words.phases`.
        seconds: of the last steps.
        asked: what the plan says about a step; None: nothing.
    """
    if phase not in GENEROUS and phase != TRAINING:
        return 0.0
    step = MEDIANS * statistics.median(seconds) if len(seconds) >= ENOUGH else LONGEST_PAUSE
    step = asked or max(SHORTEST, step)
    return max(step, LONGEST_PAUSE) if phase in GENEROUS else step


class HangGuard(TrainerCallback):
    """Gives a sign of life at each step, each change of phase and each batch of an evaluation."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._phase, self._since, self._step = "", 0.0, 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._step = state.global_step
        self._run.reporters.clock.on_enter = self._entered

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._run.reporters.clock.on_enter = None
        self._run.heart.beat(state.global_step, 0.0)

    def _entered(self, phase: str) -> None:
        """A phase begins; training does so again after each step."""
        now = time.monotonic()
        if phase == TRAINING and self._phase == TRAINING:
            self._seconds.append(now - self._since)
        if phase == TRAINING and self._phase in (TRAINING, FIRST_STEP):
            self._step += 1
        self._phase, self._since = phase, now
        self._run.heart.beat(self._step, limit(phase, list(self._seconds), self._run.plan.hang_timeout))
