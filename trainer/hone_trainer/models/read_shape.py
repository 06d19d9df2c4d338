"""Reads the sizes of a model from its config.json and the headers of its safetensors files."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hone_api.blocks.shape import ModelShape, expert_count, shape_of


def shape(folder: Path) -> ModelShape | None:
    """The shape; None if the estimate does not support this kind of model."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    total, routed = count(folder, expert_count(config))
    return shape_of(config, total, routed) if total else None


def count(folder: Path, experts: int) -> tuple[int, int]:
    """Number of weights in all files of a folder, and of those of routed experts.

    Args:
        experts: of a layer. Families hold them by one tensor each, whose name says so, or by one of all of them.
    """
    from safetensors import safe_open

    total = routed = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                sizes = file.get_slice(name).get_shape()
                total += math.prod(sizes)
                if experts and (".experts." in name or (len(sizes) > 2 and sizes[0] == experts)):
                    routed += math.prod(sizes)
    return total, routed
