"""GPUs by the name that NVIDIA's GPU feature discovery gives their nodes (label nvidia.com/gpu.product)."""

from __future__ import annotations

import re
from dataclasses import dataclass

MIB = 2**20
_VGPU = re.compile(r"\d+[ABCQ]")
"""The suffix of a virtual GPU, as in NVIDIA-A40-8Q."""


@dataclass(frozen=True)
class Gpu:
    """One GPU model."""

    name: str
    memory: int
    """Memory in bytes, as nvidia-smi shows it."""
    tflops: float
    """Peak of dense matrix products in bfloat16 (float16 where it has no bfloat16), from the vendor's data sheet."""

    @property
    def bf16(self) -> bool:
        """Whether it supports bfloat16: from Ampere on."""
        return not self.name.startswith("Tesla-")


TABLE = tuple(
    Gpu(name, mib * MIB, tflops)
    for name, mib, tflops in (
        ("Tesla-T4", 15_360, 65),
        ("Tesla-V100-16GB", 16_384, 112),
        ("Tesla-V100-32GB", 32_768, 112),
        ("NVIDIA-A10", 23_028, 125),
        ("NVIDIA-L4", 23_034, 121),
        ("NVIDIA-GeForce-RTX-4090", 24_564, 165),
        ("NVIDIA-A100-40GB", 40_960, 312),
        ("NVIDIA-L40S", 46_068, 362),
        ("NVIDIA-A40", 46_068, 150),
        ("NVIDIA-RTX-A6000", 49_140, 155),
        ("NVIDIA-A100-80GB", 81_920, 312),
        ("NVIDIA-H100-80GB", 81_559, 989),
        ("NVIDIA-H200", 143_771, 989),
        ("NVIDIA-B200", 183_359, 2250),
    )
)
"""Smallest first within one price class, by memory, not by the round number in the name."""


def find(product: str) -> Gpu | None:
    """The GPU of a product label, e.g. NVIDIA-A100-SXM4-80GB or NVIDIA-H100-80GB-HBM3; None for one not in the table.

    Every word of the table's name must be in the label; additional words (SXM4, PCIE, SHARED) are ignored.
    """
    words = set(product.upper().split("-"))
    if words & {"MIG", "LAPTOP"} or any(_VGPU.fullmatch(word) for word in words):  # part of a GPU, or a smaller one
        return None
    matching = [gpu for gpu in TABLE if set(gpu.name.upper().split("-")) - {"NVIDIA", "TESLA"} <= words]
    return max(matching, key=lambda gpu: len(gpu.name), default=None)
