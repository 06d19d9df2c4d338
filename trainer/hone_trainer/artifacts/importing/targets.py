"""Which layers a foreign adapter changes, by its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def explicit_targets(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Fields that name the layers one by one, where the config names them by regular expressions, which take any time
    to match; empty if it does not.

    The layers are those that the adapter has weights for.
    """
    if not any(isinstance(config.get(name), str) for name in ("target_modules", "exclude_modules")):
        return {}
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="numpy") as file:
        names = list(file.keys())
    layers = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in names}
    return {"target_modules": sorted(filter(None, layers)), "exclude_modules": None}
