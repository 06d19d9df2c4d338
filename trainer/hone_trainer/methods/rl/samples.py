"""The samples that further steps learn from. TRL keeps them in memory alone: a run that is resumed between two steps on
the same samples would draw others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Batch = dict[str, Any]
"""What TRL's trainers make of some samples: names to tensors."""


def save(path: Path, batches: Sequence[Mapping[str, Any]]) -> None:
    """Write the micro batches of a step to a safetensors file."""
    import torch
    from safetensors.torch import save_file

    tensors = {f"{i}.{name}": value for i, batch in enumerate(batches) for name, value in batch.items()}
    save_file({name: torch.as_tensor(value).detach().clone().contiguous() for name, value in tensors.items()}, path)


def load(path: Path, device: Any) -> list[Batch]:
    """What `save` wrote."""
    from safetensors.torch import load_file

    batches: dict[int, Batch] = {}
    for key, tensor in load_file(path, device=str(device)).items():
        number, _, name = key.partition(".")
        batches.setdefault(int(number), {})[name] = tensor
    return [batches[number] for number in sorted(batches)]
