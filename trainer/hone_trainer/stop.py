"""The wish to stop: SIGTERM (a drained node, a preempted pod, suspend: true) and Ctrl-C.

The handler only sets a flag. The training loop agrees on it over all ranks at each step, saves a checkpoint and ends;
transformers' own just-in-time checkpoint deadlocks when only one of the ranks gets the signal.
"""

from __future__ import annotations

import signal
from types import FrameType

from hone_trainer.errors import TrainerError


class Stop:
    """Set once by a signal; never cleared."""

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> Stop:
        """Handle SIGTERM and SIGINT; a second SIGINT interrupts at once. Must run on the main thread.

        Do it early: as PID 1 of a container, a process without a handler ignores SIGTERM.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return self

    def check(self, where: str) -> None:
        """Raise when a stop was asked for; for stages in which there is nothing to save."""
        if self.requested:
            raise interrupted(where)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def interrupted(where: str, step: int | None = None) -> TrainerError:
    """The error that ends an interrupted run: exit code 75, resumed without spending the restart budget."""
    return TrainerError("Interrupted", f"stopped by a signal {where}", step=step)
