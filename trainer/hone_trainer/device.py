"""What the ranks compute on."""

from __future__ import annotations

from dataclasses import dataclass

from hone_trainer import ranks


@dataclass(frozen=True)
class Device:
    """The device, the same for all ranks; `bf16` is whether their hardware multiplies in bfloat16."""

    world_size: int
    cuda: bool
    bf16: bool

    def computes_in_bf16(self, precision: str) -> bool:
        """Whether a run of that `training.precision` does."""
        return precision == "BFloat16" or (precision == "Auto" and self.cuda and self.bf16)


def here() -> Device:
    """The device of this process, and so of every rank.

    GPUs have bfloat16 from Ampere on, CPUs by AMX or AVX512-BF16; elsewhere torch emulates it, slower than float32.
    """
    import torch

    if torch.cuda.is_available():
        return Device(ranks.world_size(), cuda=True, bf16=torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return Device(ranks.world_size(), cuda=False, bf16=bool(has.get("amx_bf16") or has.get("avx512_bf16")))
