"""Curves as points of an SVG, on axes with round numbers as labels. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 56, 16, 10, 24
"""Margins around the curves, in units of the drawing; the labels of the axes are in the left and bottom margins."""
TICKS = 4
"""Approximate number of intervals of an axis."""
MOST_DOTS = 24
"""Maximum points of a curve that are drawn as dots: more would cover the line."""
Curve = Sequence[tuple[float, float]]
"""(x, y) in the order of x, which is the step."""


@dataclass(frozen=True)
class Size:
    """Size of a drawing, in its own units."""

    width: int
    height: int


LARGE, SMALL = Size(880, 300), Size(300, 150)


@dataclass(frozen=True)
class Plot:
    """Everything that a template draws."""

    size: Size
    lines: dict[str, str]
    """Points of each curve by its name, in the format of `polyline`."""
    dots: dict[str, list[tuple[float, float]]]
    """Positions of the dots, for curves with few points."""
    x_ticks: list[tuple[float, str]]
    """(place, label)."""
    y_ticks: list[tuple[float, str]]


def plot(curves: Mapping[str, Curve], size: Size = LARGE) -> Plot | None:
    """The curves in one frame; values that are not finite are left out. None if no curve has two points."""
    visible = {name: [(x, y) for x, y in curve if math.isfinite(y)] for name, curve in curves.items()}
    visible = {name: curve for name, curve in visible.items() if len(curve) > 1}
    if not visible:
        return None
    points = [point for curve in visible.values() for point in curve]
    (left, right), values = (min(x for x, _ in points), max(x for x, _ in points)), [y for _, y in points]
    x_ticks, y_ticks = steps(left, right), around(min(values), max(values))
    across = _scale(left, right, LEFT, size.width - RIGHT)
    up = _scale(y_ticks[0], y_ticks[-1], size.height - BOTTOM, TOP)
    places = {name: [(round(across(x), 1), round(up(y), 1)) for x, y in curve] for name, curve in visible.items()}
    return Plot(
        size,
        {name: " ".join(f"{x},{y}" for x, y in curve) for name, curve in places.items()},
        {name: curve for name, curve in places.items() if len(curve) <= MOST_DOTS},
        list(zip([round(across(x), 1) for x in x_ticks], labels(x_ticks), strict=True)),
        list(zip([round(up(y), 1) for y in y_ticks], labels(y_ticks), strict=True)),
    )


def around(low: float, high: float) -> list[float]:
    """Round numbers at equal distances, the first at or below `low`, the last at or above `high`; at least two."""
    if low == high:
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    width = round_number((high - low) / TICKS)
    # A value that differs from a multiple only by rounding needs no extra interval.
    first, last = math.floor(low / width + 1e-9), math.ceil(high / width - 1e-9)
    return [index * width for index in range(first, last + 1)]


def steps(left: float, right: float) -> list[float]:
    """Round whole numbers from `left` to `right`."""
    width = max(1.0, round_number((right - left) / TICKS))
    return [index * width for index in range(math.ceil(left / width), math.floor(right / width) + 1)]


def round_number(value: float) -> float:
    """The number of the form 1, 2, 2.5 or 5 times a power of ten at or above `value`, which is above 0 (Heckbert,
    Nice Numbers for Graph Labels, Graphics Gems 1990)."""
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= value * (1 - 1e-9))


def labels(values: Sequence[float]) -> list[str]:
    """Labels of an axis, all with the same number of decimals: 0.50 and 0.75; 12,000; 2e-05."""
    short = [f"{value:.6g}" for value in values]
    if any("e" in text for text in short if text != "0") and max(map(abs, values)) < 1:
        return short
    decimals = max((len(text.partition(".")[2]) for text in short if "e" not in text), default=0)
    return [f"{value:,.{decimals}f}" for value in values]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: start + (value - low) / span * (end - start)
