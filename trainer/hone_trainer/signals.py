"""The wish to stop: SIGTERM (a drained node, a preempted pod, suspend: true) and Ctrl-C.

In the training loop the handler only sets a flag: the ranks agree on it at each step, save a checkpoint and end;
transformers' own just-in-time checkpoint deadlocks when only one of the ranks gets the signal. Before the first step
there is nothing to save, and the process ends at once: a node that is drained does not wait for a model to load.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError


class Stop:
    """Set once by a signal; never cleared."""

    def __init__(self) -> None:
        self.requested = False
        self._leave: Callable[[], NoReturn] | None = None

    def leave_at_once(self, leave: Callable[[], NoReturn]) -> Stop:
        """From now on a signal calls `leave`, which ends the process; until `hold`."""
        self._leave = leave
        return self

    def hold(self) -> None:
        """There is something to save: from now on a signal only sets the flag."""
        self._leave = None

    def install(self) -> Stop:
        """Handle SIGTERM and SIGINT; a second SIGINT interrupts at once. Must run on the main thread.

        Do it early: as PID 1 of a container, a process without a handler ignores SIGTERM.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return self

    def pass_on(self, process: int) -> None:
        """From now on signals go to the child `process`; one that is stopped continues, or it would never get them."""

        def send(number: int, _frame: FrameType | None) -> None:
            self.requested = True
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(process, number)
                os.kill(process, signal.SIGCONT)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, send)

    def check(self, where: str) -> None:
        """Raise when a stop was asked for; for stages in which there is nothing to save."""
        if self.requested:
            raise interrupted(where)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if self._leave is not None:
            self._leave()


def interrupted(where: str, step: int | None = None) -> TrainerError:
    """The error that ends an interrupted run: exit code 75, resumed without spending the restart budget."""
    return TrainerError(FailureCode.INTERRUPTED, f"stopped by a signal {where}", step=step)


def die_with_parent(parent: int | None = None) -> None:
    """Have Linux kill this process when its parent is gone (prctl(2), PR_SET_PDEATHSIG).

    Args:
        parent: its process id, where it is known: if it is gone already, this process ends now.
    """
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
