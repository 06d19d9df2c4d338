"""Curves as points of an SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 640, 240, 64, 20, 24
"""Units of the drawing; left and below are the labels of the axes, the last of which reaches to the right."""
TICKS = 4
Curve = Sequence[tuple[float, float]]
"""(x, y) in the order of x."""


@dataclass(frozen=True)
class Plot:
    """Everything that a template draws."""

    lines: dict[str, str]
    """Points of each curve, by its name, as `polyline` takes them."""
    x_ticks: list[tuple[float, str]]
    """(place, label)."""
    y_ticks: list[tuple[float, str]]


def plot(curves: Mapping[str, Curve]) -> Plot | None:
    """The curves in one frame; values that are not finite are left out. None when no curve has two points."""
    found = {name: [(x, y) for x, y in curve if math.isfinite(y)] for name, curve in curves.items()}
    found = {name: curve for name, curve in found.items() if len(curve) > 1}
    if not found:
        return None
    points = [point for curve in found.values() for point in curve]
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))
    across, up = _scale(left, right, LEFT, WIDTH - RIGHT), _scale(low, high, HEIGHT - BOTTOM, 8)
    return Plot(
        {name: " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in curve) for name, curve in found.items()},
        [(round(across(x), 1), f"{x:.0f}") for x in _ticks(left, right)],
        [(round(up(y), 1), f"{y:.3g}") for y in _ticks(low, high)],
    )


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    return [low + (high - low) * i / TICKS for i in range(TICKS + 1)] if high > low else [low]
