"""Numbers that TRL's GRPO and RLOO read of each micro batch stay on the device until they are logged.

Each read makes the host wait for the device. TRL reads what its loss has gathered over the ranks, and only to log it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hone_trainer.training import finite

if TYPE_CHECKING:
    from transformers import Trainer


@contextmanager
def leave_on_device(trainer: Trainer) -> Iterator[None]:
    """Within it, what the trainer's accelerator gathers or reduces gives a tensor where its value is asked for."""
    accelerator = trainer.accelerator
    trainer.accelerator = _Accelerator(accelerator)
    try:
        yield
    finally:
        trainer.accelerator = accelerator


def read_lists(metrics: dict[str, list[Any]]) -> None:
    """Put numbers in place of scalar tensors, by one read."""
    numbers = iter(finite.read([value for values in metrics.values() for value in values]))
    for name, values in metrics.items():
        metrics[name] = [next(numbers) for _ in values]


def replace_extremes() -> None:
    """Let TRL find the extremes of a tensor with NaN without a read: its own asks whether all are NaN."""
    for name in ("trl.trainer.grpo_trainer", "trl.trainer.rloo_trainer"):
        vars(import_module(name)).update(nanmin=_nanmin, nanmax=_nanmax)


class _Accelerator:
    """An accelerator whose results are not read."""

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)

    def gather(self, tensor: Any) -> Any:
        return self._accelerator.gather(tensor.detach()).as_subclass(_unread())

    def gather_for_metrics(self, tensor: Any) -> Any:
        return self._accelerator.gather_for_metrics(tensor.detach()).as_subclass(_unread())

    def reduce(self, tensor: Any, reduction: str = "sum") -> Any:
        return self._accelerator.reduce(tensor.detach(), reduction=reduction).as_subclass(_unread())


@cache
def _unread() -> Any:
    """A class of tensors that `item` leaves where they are; so it does everything computed from them."""
    import torch

    return type("Unread", (torch.Tensor,), {"item": lambda tensor: tensor.as_subclass(torch.Tensor)})


def _nanmin(tensor: Any) -> Any:
    """The smallest of a vector but NaN; NaN if there is no other."""
    import torch

    nans = tensor.isnan()
    least = torch.where(nans, torch.full_like(tensor, torch.inf), tensor).min()
    return torch.where(nans.all(), torch.full_like(least, torch.nan), least)


def _nanmax(tensor: Any) -> Any:
    """The largest of a vector but NaN; NaN if there is no other."""
    return -_nanmin(-tensor)
