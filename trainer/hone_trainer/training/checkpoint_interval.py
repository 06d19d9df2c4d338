"""When the next checkpoint is due with checkpoints.cadence Auto: measures, and asks `settings` for the interval."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hone_trainer import ranks
from hone_trainer.training import settings

if TYPE_CHECKING:
    from hone_trainer.training.loop import Run


class CheckpointInterval:
    """Counts steps and their seconds since the last checkpoint. All ranks come to the same interval."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._interval = run.settings.checkpoint_every
        self._saved = 0
        """Step of the last checkpoint."""
        self._since = 0.0
        self._seconds, self._steps = 0.0, 0
        self._measured = False

    def begin(self, step: int) -> None:
        """Training begins after this step."""
        self._saved = step
        self.begin_step()

    def begin_step(self) -> None:
        """An optimiser step begins."""
        self._since = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint follows this step, which has just ended. A collective until the first is measured."""
        self._seconds += time.monotonic() - self._since
        self._steps += 1
        if step - self._saved >= self._interval:
            return True
        return not self._measured and ranks.any_rank(self._seconds >= settings.FIRST_SECONDS)

    def saved(self, step: int) -> None:
        """The checkpoint of this step is complete. A collective."""
        self._saved = step
        mine = [self._run.save_seconds, self._seconds / max(1, self._steps)]
        save, each = (total / ranks.world_size() for total in ranks.add_up(mine))
        interval = settings.checkpoint_interval(save, each, self._run.plan.failure_interval)
        self._seconds, self._steps, self._measured = 0.0, 0, True
        if abs(interval - self._interval) > self._interval // 5:
            self._run.reporters.log(f"a checkpoint takes {save:.1f} s, a step {each:.2f} s: one every {interval} steps")
        self._interval = interval
