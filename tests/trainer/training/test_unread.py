"""What TRL reads of each micro batch only to log it stays on the device, and is logged as before."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from hone_trainer.training import unread

pytestmark = pytest.mark.trainer


def test_what_is_gathered_is_read_when_it_is_logged() -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    trainer = SimpleNamespace(accelerator=accelerator)
    values = torch.tensor([0.1, 0.7, 0.3], requires_grad=True)
    metrics: dict[str, list[object]] = {"mean": [0.5], "ratio": []}
    with unread.leave_on_device(trainer):
        metrics["mean"].append(trainer.accelerator.gather(values).nanmean().item())
        totals = trainer.accelerator.reduce(torch.stack([values.sum(), torch.tensor(3.0)]), reduction="sum")
        metrics["ratio"].append((totals[0] / totals[1].clamp(min=1.0)).item())
        assert trainer.accelerator.num_processes == 1
    assert trainer.accelerator is accelerator
    assert [type(value) for values in metrics.values() for value in values] == [float, torch.Tensor, torch.Tensor]
    unread.read_lists(metrics)
    assert metrics == {"mean": [0.5, values.nanmean().item()], "ratio": [(values.sum() / 3.0).item()]}


def test_an_accelerator_is_put_back_after_an_error() -> None:
    trainer = SimpleNamespace(accelerator=object())
    before = trainer.accelerator
    with pytest.raises(ValueError, match="in the loss"), unread.leave_on_device(trainer):
        raise ValueError("in the loss")
    assert trainer.accelerator is before


@pytest.mark.parametrize("values", [[1.0], [2.0, -1.0, 0.5], [math.nan, 3.0, -2.0], [math.nan], [-math.inf, math.nan]])
def test_extremes_are_those_of_trl(values: list[float]) -> None:
    from trl.trainer import grpo_trainer, rloo_trainer
    from trl.trainer.utils import nanmax, nanmin

    tensor = torch.tensor(values)
    expected = [nanmin(tensor), nanmax(tensor)]
    unread.replace_extremes()
    for module in (grpo_trainer, rloo_trainer):
        found = [module.nanmin(tensor), module.nanmax(tensor)]
        assert [str(value.item()) for value in found] == [str(value.item()) for value in expected]
