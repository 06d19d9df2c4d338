"""Loops over rows: each row of a step counts as much as another, also where the last step of an epoch has too few for
all ranks, and the numbers of micro batches stay on the device until they are logged.

All ranks make as many forward passes, since they compute together. A rank that has no row for its last pass computes
one that does not count: in the loss, in what it is divided by, and in what is logged.

TRL reads each number of each micro batch, and the host waits for the device every time. Here they are read in one go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hone_trainer import ranks
from hone_trainer.encoding.row import IGNORED
from hone_trainer.models.network import Network
from hone_trainer.training import finite
from hone_trainer.training.batches import indexed, samplers
from hone_trainer.training.loop import Loop, Run

_ROWS = "rows"
"""What a batch holds besides its tensors: how many rows it is of."""


class Dealt(Loop):
    """A `Loop` whose step has the loss of its rows, however many of them share a pass."""

    accelerator: Any
    train_dataset: Any
    data_collator: Any
    weight: Any
    """What the mean over the rows of this pass is multiplied by, so that the passes of a step on all ranks, which
    transformers and data parallelism average, give the mean over the rows of the step."""

    current_gradient_accumulation_steps: int

    def attach(self, run: Run) -> None:
        super().attach(run)
        self._passes: Iterator[tuple[int, Any]] = iter(())
        self._pass_tokens = run.settings.pass_tokens
        self._counted = Counted(self.data_collator, lambda: self.train_dataset[0])
        self.data_collator = Divided(self._counted, self._pass_tokens) if self._pass_tokens else self._counted

    def get_train_dataloader(self) -> Any:
        loader = super().get_train_dataloader()
        if group := self.run.group:
            group.deal(loader)
        if ranks.world_size() > 1:
            samplers.deal(loader, indexed.sequence_lengths(self.train_dataset) if self._pass_tokens else None)
        return loader

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The micro batches of a step; where they are filled by tokens, they are one batch for transformers."""
        if not self._pass_tokens:
            return self._weighed(*super().get_batch_samples(epoch_iterator, num_batches, device), device)
        parts = [part for batch in islice(epoch_iterator, num_batches) for part in batch]
        most = -int(ranks.least(-len(parts))) if ranks.world_size() > 1 else len(parts)
        parts += [self._counted([]) for _ in range(most - len(parts))]
        batches, items = self._weighed(*super().get_batch_samples(iter(parts), len(parts), device), device)
        return [batches], items

    def _weighed(self, batches: list[Any], items: Any, device: Any) -> tuple[list[Any], Any]:
        import torch

        rows = [batch.pop(_ROWS) for batch in batches]
        of_all = self.accelerator.gather(torch.tensor([sum(rows)], device=device)).sum()
        passes = len(rows) * ranks.world_size()
        self._passes = iter([(count, count * passes / of_all) for count in rows])
        if self.run.group and items is not None:
            items = items // self.run.group.size  # each of its ranks has counted the same tokens
        return batches, items

    def training_step(self, model: Network, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """A pass; or all passes of a step: the ranks share their gradients in the last."""
        if not isinstance(inputs, list):
            return self._pass(model, inputs, num_items_in_batch)
        self.current_gradient_accumulation_steps = len(inputs)
        *before, last = inputs
        losses = []
        self.accelerator.sync_gradients = False
        for part in before:
            with nullcontext() if self.is_deepspeed_enabled else self.accelerator.no_sync(model):
                losses.append(self._pass(model, part, num_items_in_batch))
        self.accelerator.sync_gradients = True
        return sum(losses, self._pass(model, last, num_items_in_batch))

    def _pass(self, model: Network, inputs: Any, num_items_in_batch: Any) -> Any:
        rows, self.weight = next(self._passes)
        self.is_empty = not rows
        return super().training_step(model, inputs, num_items_in_batch)

    def add_up(self, sums: Any) -> Any:
        """The sums over the ranks of what is of rows that count: (n,). A collective.

        Args:
            sums: of this rank: (n,).
        """
        import torch

        mine = torch.zeros_like(sums) if self.is_empty else sums.detach()
        return self.accelerator.gather(mine[None]).sum(0)


@dataclass(frozen=True)
class Counted:
    """A collator that notes how many rows a batch is of, and makes one of no row of another one that does not count."""

    collate: Callable[[list[Any]], Any]
    stand_in: Callable[[], Any]

    def __call__(self, examples: list[Any]) -> Any:
        batch = self.collate(examples or [self.stand_in()])
        if not examples and "labels" in batch:  # transformers counts what is not ignored
            batch["labels"].fill_(IGNORED)
        batch[_ROWS] = len(examples)
        return batch


@dataclass(frozen=True)
class Divided:
    """A collator that makes several batches of so many tokens."""

    collate: Counted
    most: int

    def __call__(self, examples: list[Any]) -> list[Any]:
        lengths = [_longest_sequence(example) for example in examples]
        return [self.collate([examples[i] for i in places]) for places in samplers.passes(lengths, self.most)]


def _longest_sequence(example: Mapping[str, Any]) -> int:
    """Tokens of a row: of a pair, those of its longer sequence, as a run's longest row is measured."""
    ids = {name: len(value) for name, value in example.items() if name.endswith("_ids")}
    return ids.pop("prompt_ids", 0) + max(ids.values())


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
