"""That all data-parallel ranks have the same weights: a library that forgets to add up gradients, or a card that
computes wrongly, shows in no curve of a loss.

Each rank reads its trained weights once, on its device, and the ranks compare two numbers. Adding integers gives the
same sum in each order, so equal weights have equal hashes on any device. But ranks on unlike hardware round a gradient
norm unlike, and their weights come apart by that: they are only warned of.
"""

from __future__ import annotations

import zlib
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.errors import TrainerError
from hone_trainer.models.network import Network

_COLUMNS = 1024
"""Sums of a tensor: words of 64 bits whose places differ by a multiple of it are added."""
_ODD = 0x9E3779B97F4A7C15 - (1 << 64)
"""By which sums are mixed; odd, so that no bit is lost."""
_LOW = (1 << 32) - 1


def check(network: Network, step: int) -> str | None:
    """Compare the weights that a run trains, where each rank holds all of them. A collective.

    Returns:
        Advice, where they differ and so does the hardware of the ranks.

    Raises:
        TrainerError: RanksDiffer.
    """
    if ranks.world_size() == 1:
        return None
    mine = digest(network)
    world, place = ranks.world_size(), 3 * ranks.rank()
    shares = [0.0] * (3 * world)  # whole numbers up to 2^53 stay exact
    shares[place : place + 3] = float(mine & _LOW), float(mine >> 32 & _LOW), float(zlib.crc32(_hardware().encode()))
    of_all = ranks.add_up(shares)
    others = [rank for rank in range(world) if of_all[3 * rank : 3 * rank + 2] != of_all[:2]]
    if not others:
        return None
    names = ", ".join(map(str, others))
    if len(set(of_all[2::3])) > 1:
        return (
            f"the trained weights of rank {names} differ from those of rank 0, whose hardware or number of threads is "
            "another: it may only round unlike. The weights of rank 0 are kept; name one product in "
            "resources.gpuProducts to have them compared"
        )
    message = (
        f"the trained weights of rank {names} differ from those of rank 0 after step {step}: "
        "their gradients were not added up alike, or a GPU computes wrongly. This checkpoint is not kept"
    )
    raise TrainerError(FailureCode.RANKS_DIFFER, message, rank=others[0], step=step)


def _hardware() -> str:
    """What decides how this rank rounds."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def digest(network: Network) -> int:
    """A hash of the trained weights of this rank, bit by bit, in 64 bits."""
    import torch

    total: Any = 0
    for weight in network.parameters():
        if weight.requires_grad:
            total = total * _ODD + _of_tensor(weight.detach())
    return int(total.item()) & ((1 << 64) - 1) if torch.is_tensor(total) else total


def _of_tensor(weight: Any) -> Any:
    """A sum of its bits in words of 64, each times an odd number of its column; it overflows, alike on each device."""
    import torch

    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    bits, in_word = weight.contiguous().view(whole).flatten(), 8 // weight.element_size()
    if bits.storage_offset() % in_word:
        bits = bits.clone()
    row = _COLUMNS * in_word
    end = len(bits) // row * row
    rest = torch.nn.functional.pad(bits[end:], (0, row - len(bits) + end))
    sums = bits[:end].view(torch.int64).view(-1, _COLUMNS).sum(0) + rest.view(torch.int64)
    return (sums * (2 * torch.arange(_COLUMNS, device=weight.device) + 1)).sum()
