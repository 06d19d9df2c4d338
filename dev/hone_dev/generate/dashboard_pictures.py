"""Pictures of the dashboards for the docs: `python -m hone_dev.generate.dashboard_pictures` writes docs/images.

A Prometheus answers every expression of every panel over the story of `dashboard_story`; this draws what it says.
Grafana draws other colours and legends.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from hone_dev.generate.dashboard_story import WATCHED, Server, prometheus
from hone_dev.generate.dashboards import boards
from hone_dev.generate.panels import Board, Panel
from hone_dev.tools import paths
from hone_trainer.artifacts import plots

IMAGES = paths.SOURCE / "docs" / "images"
RULES = paths.SOURCE / "charts" / "hone" / "files" / "rules" / "hone.yaml"
COLUMN, ROW, GAP, HEAD = 58, 30, 8, 22
"""A dashboard has 24 columns. Lengths in units of the drawing."""
COLOURS = ("#3274d9", "#e02f44", "#37872d", "#fa6400", "#8f3bb8", "#b8860b", "#008080", "#c71585", "#555", "#7b9e00")
MOST_SERIES, MOST_ROWS = 6, 6
UNITS: Mapping[str, tuple[float, str]] = {"bytes": (1e9, " GB"), "percentunit": (0.01, " %"), "mbytes": (1024, " GiB")}
CHOSEN = {
    "$cluster": ".*",
    "$namespace": ".*",
    "$queue": ".*",
    "$finetunejob": WATCHED.name,
    "$__rate_interval": "8m",
    "$__range": "6h",
}
"""What the variables are; the rate's window has two of the story's samples."""


def chosen(expr: str, job: str = WATCHED.name) -> str:
    """The expression as Grafana sends it."""
    for name, value in {**CHOSEN, "$finetunejob": job}.items():
        expr = expr.replace(name, value)
    return expr


def answers(panel: Panel, server: Server) -> list[tuple[str, Any]]:
    """The series of a panel with their names."""
    instant = panel.shows in ("number", "table")
    found = []
    for query in panel.queries:
        for series in server.query(chosen(query.expr), instant=instant):
            name = query.legend
            for label, value in series["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            found.append((re.sub(r" ?\{\{\w+\}\}", "", name), series))
    return found


def draw(board: Board, server: Server) -> str:
    """A dashboard as SVG."""
    x = y = height = 0
    parts: list[str] = []
    for title, panels in board.rows.items():
        y, x, height = y + height, 0, 0
        parts.append(f'<text x="4" y="{y + 22}" class="row">{escape(title)}</text>')
        y += ROW
        for panel in panels:
            if x + panel.width > 24:
                x, y = 0, y + height
            height = panel.height * ROW
            size = plots.Size(panel.width * COLUMN - GAP, height - GAP)
            parts.append(f'<g transform="translate({x * COLUMN + 4},{y})">{"".join(_panel(panel, size, server))}</g>')
            x += panel.width
    style = (
        "text{font:12px sans-serif;fill:#222}.row{font-size:16px;font-weight:bold}.head{font-weight:bold}"
        ".big{font-size:30px}.axis{font-size:10px;fill:#777}.none{fill:#999}polyline{fill:none;stroke-width:1.5}"
    )
    width, total = 24 * COLUMN + 4, y + height
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}"><style>{style}</style>'
    return f'{head}<rect width="{width}" height="{total}" fill="#fff"/>{"".join(parts)}</svg>\n'


def _panel(panel: Panel, size: plots.Size, server: Server) -> Iterator[str]:
    yield f'<rect width="{size.width}" height="{size.height}" fill="#fafafa" stroke="#ddd" rx="3"/>'
    yield f'<text x="8" y="16" class="head">{escape(panel.title)}</text>'
    series = answers(panel, server)
    if not series:
        yield '<text x="8" y="44" class="none">none</text>'
    elif panel.shows == "number":
        yield f'<text x="8" y="62" class="big">{_words(float(series[0][1]["value"][1]), panel.unit)}</text>'
    elif panel.shows == "table":
        yield from _table(panel, series, size)
    else:
        yield from _curves(panel, series, size, server.now)


def _words(value: float, unit: str) -> str:
    if unit == "s":
        return (
            f"{value / 3600:.1f} h" if value >= 7200 else f"{value / 60:.0f} min" if value >= 120 else f"{value:.2g} s"
        )
    by, name = UNITS.get(unit, (1.0, ""))
    return f"{value / by:,.0f}{name}" if abs(value / by) >= 1000 else f"{value / by:.4g}{name}"


def _table(panel: Panel, series: list[tuple[str, Any]], size: plots.Size) -> Iterator[str]:
    lines = [[*panel.columns]]
    for _, each in series[:MOST_ROWS]:
        known = {**each["metric"], "Value": _words(float(each["value"][1]), panel.unit)}
        lines.append([known.get(column, "") for column in panel.columns])
    if len(series) > MOST_ROWS:
        lines.append([f"and {len(series) - MOST_ROWS} more"])
    wide = size.width // len(panel.columns)
    for number, line in enumerate(lines):
        for column, text in enumerate(line):
            name = "axis" if not number else ""
            at = f'x="{8 + column * wide}" y="{40 + 20 * number}"'
            yield f'<text {at} class="{name}">{escape(_fitting(text, wide, 7.5))}</text>'


def _fitting(text: str, width: int, character: float) -> str:
    """As much of the text as fits into this width; the end of a long one is left out and marked."""
    most = max(int((width - 8) / character), 0)
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…" * (most > 0)


def _curves(panel: Panel, series: list[tuple[str, Any]], size: plots.Size, now: float) -> Iterator[str]:
    by, unit = UNITS.get(panel.unit, (1.0, ""))
    if panel.unit == "s":
        values = (float(value) for _, each in series for _, value in each["values"])
        longest = max(value for value in values if math.isfinite(value))
        by, unit = (3600.0, " h") if longest >= 7200 else (60.0, " min") if longest >= 120 else (1.0, " s")
    shown, totals = series[:MOST_SERIES], dict[float, float]()
    curves: dict[str, list[tuple[float, float]]] = {}
    for number, (name, each) in enumerate(shown):
        points = [((float(at) - now) / 3600, float(value) / by) for at, value in each["values"]]
        if panel.shows == "areas":
            points = [(at, totals.setdefault(at, 0.0) + value) for at, value in points]
            totals.update(points)
        curves[f"{number} {name}"] = points
    frame = plots.plot({**curves, "frame": [(-6, 0.0), (0, 0.0)]}, plots.Size(size.width, size.height - HEAD - 18))
    assert frame
    yield f'<g transform="translate(0,{HEAD})">'
    for at, label in frame.y_ticks:
        yield f'<line x1="56" x2="{size.width - 16}" y1="{at}" y2="{at}" stroke="#eee"/>'
        yield f'<text x="50" y="{at + 3}" text-anchor="end" class="axis">{label}{unit}</text>'
    for at, label in frame.x_ticks:
        yield f'<text x="{at}" y="{frame.size.height - 8}" text-anchor="middle" class="axis">{label} h</text>'
    for number, name in enumerate(curves):
        if name in frame.lines:
            yield f'<polyline points="{frame.lines[name]}" stroke="{COLOURS[number]}"/>'
    yield "</g>"
    x = 8
    for number, (name, _) in enumerate(shown):
        text = _fitting(name.strip() or "all", size.width - x, 5.5)
        yield f'<text x="{x}" y="{size.height - 8}" style="fill:{COLOURS[number]}" class="axis">{escape(text)}</text>'
        x += round(5.5 * len(text)) + 12


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder, prometheus(Path(folder), RULES) as server:
        time.sleep(3)  # alerts fire after the first evaluations
        for file, board in boards().items():
            (IMAGES / f"dashboard-{file.stem}.svg").write_text(draw(board, server))
            print(f"wrote docs/images/dashboard-{file.stem}.svg")


if __name__ == "__main__":
    main()
