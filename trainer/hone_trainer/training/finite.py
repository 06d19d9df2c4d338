"""Reads several numbers from a device at once: each read makes the host wait for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def read(values: Sequence[Any]) -> list[float]:
    """The values as numbers, by one read of each device.

    Args:
        values: scalar tensors of one device, and numbers.
    """
    import torch

    tensors = [value for value in values if torch.is_tensor(value)]
    numbers = iter(torch.stack([t.detach().double() for t in tensors]).tolist() if tensors else [])
    return [next(numbers) if torch.is_tensor(value) else float(value) for value in values]
