"""How long the forward passes of this rank take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module


class Forward:
    """Seconds that this rank's forward passes took. On a GPU the passes are timed by events, without a wait."""

    def __init__(self, cuda: bool) -> None:
        self._cuda, self._seconds = cuda, 0.0
        self._events = list[tuple[Any, Any]]()
        self._begin: Any = None

    def watch(self, model: Module) -> None:
        """Time each forward pass of the model that trains."""
        model.register_forward_pre_hook(self._enter)
        model.register_forward_hook(self._leave)

    def take(self) -> float:
        """The seconds so far, and start again at 0. At the end of a step, when the device has done its passes."""
        seconds: float = self._seconds + sum(begin.elapsed_time(end) / 1000 for begin, end in self._events)
        self._seconds, self._events = 0.0, []
        return seconds

    def _enter(self, model: Module, *_: Any) -> None:
        import torch

        self._begin = self._mark() if model.training and torch.is_grad_enabled() else None

    def _leave(self, *_: Any) -> None:
        begin, self._begin = self._begin, None
        if begin is None:
            return
        if self._cuda:
            self._events.append((begin, self._mark()))
        else:
            self._seconds += self._mark() - begin

    def _mark(self) -> Any:
        """A point in time: of the device's stream, or in seconds."""
        if not self._cuda:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
