"""That all data-parallel ranks have the same weights: a library that forgets to add up gradients, or a card that
computes wrongly, shows in no curve of a loss.

Each rank reads its trained weights once, on its device, and the ranks compare two numbers. Adding integers gives the
same sum in each order, so equal weights have equal hashes on any device.
"""

from __future__ import annotations

from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.errors import TrainerError
from hone_trainer.models.network import Network

_AT_ONCE = 1 << 22
"""Elements that are widened to 64 bits at a time."""
_ODD = 0x9E3779B97F4A7C15 - (1 << 64)
"""By which sums are mixed; odd, so that no bit is lost."""
_LOW = (1 << 32) - 1


def check(network: Network, step: int) -> None:
    """Compare the weights that a run trains, where each rank holds all of them. A collective.

    Raises:
        TrainerError: RanksDiffer.
    """
    if ranks.world_size() == 1:
        return
    mine = digest(network)
    world, place = ranks.world_size(), 2 * ranks.rank()
    shares = [0.0] * (2 * world)
    shares[place : place + 2] = float(mine & _LOW), float(mine >> 32 & _LOW)  # whole numbers up to 2^53 stay exact
    of_all = ranks.add_up(shares)
    others = [rank for rank in range(world) if of_all[2 * rank : 2 * rank + 2] != of_all[:2]]
    if others:
        message = (
            f"the trained weights of rank {', '.join(map(str, others))} differ from those of rank 0 after step {step}: "
            "their gradients were not added up alike, or a GPU computes wrongly. This checkpoint is not kept"
        )
        raise TrainerError(FailureCode.RANKS_DIFFER, message, rank=others[0], step=step)


def digest(network: Network) -> int:
    """A hash of the trained weights of this rank, bit by bit, in 64 bits."""
    import torch

    total: Any = 0
    for weight in network.parameters():
        if weight.requires_grad:
            total = total * _ODD + _of_tensor(weight.detach())
    return int(total.item()) & ((1 << 64) - 1) if torch.is_tensor(total) else total


def _of_tensor(weight: Any) -> Any:
    """A sum of its bits, each element times an odd number of its place; it overflows, alike on each device."""
    import torch

    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    bits = weight.contiguous().view(whole).flatten()
    result = torch.zeros((), dtype=torch.int64, device=weight.device)
    for start in range(0, len(bits), _AT_ONCE):
        part = bits[start : start + _AT_ONCE].long()
        places = torch.arange(start, start + len(part), device=weight.device)
        result = result + (part * (2 * places + 1)).sum()
    return result
