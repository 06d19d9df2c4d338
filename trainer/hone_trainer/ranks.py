"""Ranks: who am I, and agreeing with the others. Everything also works without a process group."""

from __future__ import annotations

import os
from collections.abc import Sequence


def rank() -> int:
    """Global rank of this process; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of ranks; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is global rank 0: the one that writes artifacts and the result."""
    return rank() == 0


def is_first_of_node() -> bool:
    """Whether this is the first rank of its node: the one that writes what the others of the node read."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def add_up(values: Sequence[float]) -> list[float]:
    """The element-wise sum of `values` over all ranks (float64); a collective."""
    import torch
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(tensor)
    sums: list[float] = tensor.tolist()
    return sums


def least(value: float) -> float:
    """The smallest `value` of all ranks (float64); a collective."""
    import torch
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device=_device())
    dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
    return float(tensor.item())


def any_rank(flag: bool) -> bool:
    """Whether `flag` is set on at least one rank; a collective."""
    return add_up([float(flag)])[0] > 0


def text_of_any(text: str) -> str:
    """The text of the first rank that has one; empty if none has. A collective."""
    first = int(least(rank() if text else world_size()))
    return text_of_first(text, first) if first < world_size() else ""


def text_of_first(text: str, first: int = 0) -> str:
    """The text that the first rank gave, or that of another number; a collective."""
    import torch
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return text
    data = text.encode()
    length = torch.tensor([len(data)], dtype=torch.int64, device=_device())
    dist.broadcast(length, src=first)
    held = bytearray(data if rank() == first else int(length.item()))
    if not held:
        return ""
    buffer = torch.frombuffer(held, dtype=torch.uint8).to(_device())
    dist.broadcast(buffer, src=first)
    return bytes(buffer.tolist()).decode()


def barrier() -> None:
    """Wait for all ranks; a collective."""
    add_up([0.0])


def _device() -> str:
    import torch.distributed as dist

    return "cuda" if dist.get_backend() == "nccl" else "cpu"
