"""Numbers of micro batches that stay on the device until they are logged, and are then read in one go.

TRL reads each number of each micro batch, and the host waits for the device every time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from hone_trainer.training import finite
from hone_trainer.training.dealt import Dealt
from hone_trainer.training.loop import Run


class Deferred(Dealt):
    """A `Dealt` for trainers whose loss is ours. A number that is logged is the mean over the micro batches since the
    last log."""

    def attach(self, run: Run) -> None:
        super().attach(run)
        self._kept: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        """Sum and count of each micro batch."""
        self._tokens: Any = 0

    def keep(self, name: str, value: Any) -> None:
        """Note a number of a micro batch of all ranks, a scalar."""
        self._kept[name].append((value.detach(), 1))

    def keep_means(self, values: Mapping[str, Any]) -> None:
        """Note the means of tensors over their elements and the ranks. A collective."""
        import torch

        self.keep_sums({name: (value.sum(), torch.ones_like(value).sum()) for name, value in values.items()})

    def keep_sums(self, sums: Mapping[str, tuple[Any, Any]]) -> None:
        """Note sums and what they count, of all ranks. A collective.

        What is logged is all sums divided by all counts since the last log; nothing, where nothing was counted.

        Args:
            sums: name to a sum and a count of this rank, scalars.
        """
        import torch

        mine = torch.stack([value.double() for pair in sums.values() for value in pair])
        for name, pair in zip(sums, self.add_up(mine).view(-1, 2), strict=True):
            self._kept[name].append((pair[0], pair[1]))

    def count(self, tokens: Any) -> None:
        """Add this rank's tokens of a micro batch, a scalar, to those of the run. A collective."""
        self._tokens = self._tokens + self.add_up(tokens[None])[0]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        kept = self._kept if "loss" in logs else {}
        sums = [sum(part) for values in kept.values() for part in zip(*values, strict=True)]
        *numbers, tokens = finite.read([*sums, self._tokens])
        pairs = zip(kept, numbers[::2], numbers[1::2], strict=True)
        means = {name: total / count for name, total, count in pairs if count}
        kept.clear()
        super().log({**logs, **self.logged(means), "num_tokens": tokens}, start_time)

    def logged(self, means: dict[str, float]) -> dict[str, float]:
        """What is logged of the numbers: these, and what follows from them."""
        return means
