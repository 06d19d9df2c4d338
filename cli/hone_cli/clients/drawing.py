"""Curves as SVG, without a style sheet or a script: for notebooks and for the page of `hone ui`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

Curve = Sequence[tuple[int, float]]
_COLORS = ("#2f7dc4", "#c2571a", "#2e8b57", "#9a5cc7", "#b3456b", "#6b7a3a")
"""At least 3 to 1 against white and against the dark page (WCAG 1.4.11)."""
_WIDTH, _HEIGHT, _LEFT, _BELOW = 480, 150, 56, 22
_LINE = 18


def run(name: str, line: str, curves: Mapping[str, Curve]) -> str:
    """A run for a notebook: loss and held-out loss in one chart, each other metric in its own."""
    together = {key: curves[key] for key in ("loss", "eval_loss") if key in curves}
    charts = [together] if together else []
    charts += [{key: points} for key, points in curves.items() if key not in together]
    drawn = "".join(chart(each, f"{name}: {', '.join(each)}") for each in charts)
    return f"<div><strong>{escape(name)}</strong> {escape(line)}<br>{drawn}</div>"


def chart(curves: Mapping[str, Curve], title: str) -> str:
    """Curves over the same steps, as one SVG element; numbers that are not finite are gaps."""
    points = [point for curve in curves.values() for point in curve if math.isfinite(point[1])]
    if not points:
        return ""
    steps, values = [step for step, _ in points], [value for _, value in points]
    left, right, low, high = min(steps), max(steps), min(values), max(values)
    wide, tall = _WIDTH - _LEFT - 8, _HEIGHT - _BELOW - 8

    def place(step: int, value: float) -> str:
        """One step, or one value, is in the middle."""
        x = (step - left) / (right - left) if right > left else 0.5
        y = (value - low) / (high - low) if high > low else 0.5
        return f"{_LEFT + x * wide:.1f},{_HEIGHT - _BELOW - y * tall:.1f}"

    lines = [
        part
        for number, curve in enumerate(curves.values())
        for part in _lines([place(*point) if math.isfinite(point[1]) else None for point in curve], number)
    ]
    bottom = _HEIGHT - _BELOW
    if high > low:
        texts = [_text(_LEFT - 6, 14, f"{high:.4g}", "end"), _text(_LEFT - 6, bottom, f"{low:.4g}", "end")]
    else:
        texts = [_text(_LEFT - 6, 8 + tall / 2 + 4, f"{high:.4g}", "end")]
    if right > left:
        texts += [_text(_LEFT, _HEIGHT - 6, f"step {left}"), _text(_WIDTH - 8, _HEIGHT - 6, f"{right}", "end")]
    else:
        texts.append(_text(_LEFT + wide / 2, _HEIGHT - 6, f"step {left}", "middle"))
    for number, (name, curve) in enumerate(curves.items()):
        y = _HEIGHT + _LINE * (number + 1) - 6
        lines.append(f'<path d="M{_LEFT},{y - 4}h20" stroke="{_color(number)}" stroke-width="3"{_dashes(number)}/>')
        texts.append(_text(_LEFT + 28, y, f"{name} {curve[-1][1]:.4g}" if curve else name))
    height = _HEIGHT + _LINE * len(curves) + 4
    frame = f'<path d="M{_LEFT},8V{bottom}H{_WIDTH - 8}" stroke="currentColor" stroke-opacity=".4" fill="none"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" aria-label="{escape(title)}" '
        f'font-family="system-ui, sans-serif" font-size="12">{frame}{"".join(lines)}{"".join(texts)}</svg>'
    )


def _lines(places: Sequence[str | None], number: int) -> Iterator[str]:
    """A line for each stretch without a gap; a point alone is a dot."""
    stretch: list[str] = []
    for place in (*places, None):
        if place is not None:
            stretch.append(place)
        elif stretch:
            if len(stretch) == 1:
                x, _, y = stretch[0].partition(",")
                yield f'<circle cx="{x}" cy="{y}" r="4" fill="{_color(number)}"/>'
            else:
                yield (
                    f'<polyline points="{" ".join(stretch)}" fill="none" stroke="{_color(number)}" stroke-width="2" '
                    f'stroke-linecap="round" stroke-linejoin="round"{_dashes(number)}/>'
                )
            stretch = []


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _dashes(number: int) -> str:
    """So that nobody needs the colours to tell curves apart."""
    return f' stroke-dasharray="{2 + 3 * number} 4"' if number else ""


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" fill="currentColor" text-anchor="{anchor}">{escape(words)}</text>'
