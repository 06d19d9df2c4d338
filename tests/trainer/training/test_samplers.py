"""Rows sorted within a step: the same steps, less padding, the same weights."""

from __future__ import annotations

import pytest

from hone_trainer.training.samplers import WithinStep

pytestmark = pytest.mark.trainer


class Shuffled:
    """A sampler whose order depends on the epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter([3, 0, 6, 2, 5, 1, 4] if self.epoch == 0 else [6, 5, 4, 3, 2, 1, 0])

    def __len__(self) -> int:
        return 7

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def test_each_step_keeps_its_rows_and_has_them_longest_first() -> None:
    lengths = [10, 20, 30, 40, 50, 60, 70]
    order = WithinStep(Shuffled(), lengths, rows=3)
    assert list(order) == [6, 3, 0, 5, 2, 1, 4]  # {3, 0, 6}, {2, 5, 1}, {4}
    order.set_epoch(1)
    assert list(order) == [6, 5, 4, 3, 2, 1, 0]
    assert len(order) == 7
