"""Reads the sizes of a model from its config.json and the headers of its safetensors files."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hone_api.blocks.shape import ModelShape, shape_of


def shape(folder: Path) -> ModelShape | None:
    """The shape; None if the estimate does not support this kind of model."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return shape_of(config, parameters) if (parameters := count(folder)) else None


def count(folder: Path) -> int:
    """Number of weights in all files of a folder."""
    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                total += math.prod(file.get_slice(name).get_shape())
    return total
