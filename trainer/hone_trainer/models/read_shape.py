"""The sizes of a model in a folder, from its config.json and the headers of its safetensors files."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hone_api.estimate.shape import ModelShape, shape_of


def shape(folder: Path) -> ModelShape | None:
    """None where the model is of a kind that no estimate knows."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return shape_of(config, parameters) if (parameters := count(folder)) else None


def count(folder: Path) -> int:
    """Weights in all files of a folder."""
    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                total += math.prod(file.get_slice(name).get_shape())
    return total
