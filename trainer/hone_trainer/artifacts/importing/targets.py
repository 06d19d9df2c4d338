"""Which layers a foreign adapter changes, by its weights."""

from __future__ import annotations

import json
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
    layers = _layers(folder)
    return {"target_modules": sorted(layers), "exclude_modules": None}


def target_names(folder: Path) -> list[str]:
    """Last parts of the names of the layers and parameters that an adapter changes, sorted; the first 64."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    parameters = {str(name).rpartition(".")[2] for name in config.get("target_parameters") or ()}
    layers = {layer.removesuffix(".base_layer").rpartition(".")[2] for layer in _layers(folder)}
    return sorted({*layers, *parameters} - ({"experts"} if parameters else set()))[:64]


def _layers(folder: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="numpy") as file:
        names = list(file.keys())
    return {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in names} - {""}
