"""Numbers of micro batches that stay on the device until they are logged, and are then read in one go.

TRL reads each number of each micro batch, and the host waits for the device every time.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hone_trainer.training import finite
from hone_trainer.training.loop import Loop, Run


class Deferred(Loop):
    """A `Loop` for trainers whose loss is ours. A number that is logged is the mean over the micro batches since the
    last log."""

    accelerator: Any

    def attach(self, run: Run) -> None:
        super().attach(run)
        self._kept: dict[str, list[Any]] = defaultdict(list)
        self._tokens: Any = 0

    def keep(self, name: str, value: Any) -> None:
        """Note a number of a micro batch of all ranks, a scalar."""
        self._kept[name].append(value.detach())

    def keep_mean(self, name: str, value: Any) -> None:
        """Note the mean of a tensor over its elements and the ranks. A collective."""
        self.keep(name, self.accelerator.gather(value.detach()).mean())

    def count(self, tokens: Any) -> None:
        """Add this rank's tokens of a micro batch, a scalar, to those of the run. A collective."""
        self._tokens = self._tokens + self.accelerator.gather(tokens).sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        kept = self._kept if "loss" in logs else {}
        *means, tokens = finite.read([*(sum(values) / len(values) for values in kept.values()), self._tokens])
        found = dict(zip(kept, means, strict=True))
        kept.clear()
        super().log({**logs, **found, "num_tokens": tokens}, start_time)
