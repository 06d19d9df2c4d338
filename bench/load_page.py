"""Writes what `operator_load.py` measured into docs/reliability.md: a column for each number of jobs, with its commit.

A column replaces the one of the same number of jobs; the others stay. Figures that miss their bound are bold.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from load_figures import Load, rows

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reliability.md"
BEGIN = "<!-- begin: written by bench/operator_load.py --write -->"
END = "<!-- end: written by bench/operator_load.py --write -->"
FIGURE, COMMIT, BOUND = "Figure", "Commit", "Bound"
EACH = (
    "CPU to start a job",
    "CPU to read it again after a restart",
    "CPU of a job a minute while nothing happens",
    "Memory of a job",
)
"""Costs of one job. They are the same in each column if the cost of the operator is linear in the number of jobs."""
BOUNDED = {
    "Ready after a restart": ("ready after a restart", "15 s"),
    "Writes after a restart": ("writes after a restart", "0"),
    "Cores while jobs report": ("cores with", "0.6"),
    "Status writes for a job that reports, a minute": ("writes a minute", "4"),
    "Answer to a report, p99": ("answer to a report", ""),
    "From the creation of a job to its first status, p99": ("event to status", "1 s"),
    "Memory": ("memory", "250 MiB"),
    "Deletion of the largest namespace": ("deletion of a namespace", "300 s"),
    "Memory a minute after all jobs were deleted": ("memory a minute after", "1.2 times that with one job before"),
}
"""Figure of the page -> beginning of its name in `load_figures.rows`, and its bound."""
Table = dict[str, dict[str, str]]
"""Values by column and figure."""


def written(page: str, loads: list[Load], commit: str) -> str:
    """The page with the columns of these loads.

    Raises:
        ValueError: the page has no such table.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}\n(.*?)\n{re.escape(END)}", re.DOTALL)
    if (match := pattern.search(page)) is None:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    table = _read(match[1])
    for load in loads:
        table = {name: column for name, column in table.items() if _jobs(name) != load.jobs}
        table[f"{load.jobs:,} jobs, {load.active} report"] = _column(load, commit)
    text = f"{BEGIN}\n\n{_markdown(table)}\n\n{END}"
    return page[: match.start()] + text + page[match.end() :]


def write(loads: list[Load]) -> None:
    """Write the columns of these loads into docs/reliability.md."""
    commit = subprocess.check_output(["git", "rev-parse", "--short=8", "HEAD"], cwd=ROOT, text=True).strip()
    PAGE.write_text(written(PAGE.read_text(), loads, commit))


def _column(load: Load, commit: str) -> dict[str, str]:
    seconds = (load.created_cpu, load.restart_cpu, load.idle_cores * 60)
    each = [f"{value * 1000 / load.jobs:.1f} ms" for value in seconds] + [f"{load.kib_a_job:.1f} KiB"]
    column = {COMMIT: commit, **dict(zip(EACH, each, strict=True))}
    measured = rows(load)
    for figure, (name, _) in BOUNDED.items():
        value, held = next((value, held) for title, value, _, held in measured if re.match(rf"{name}\b", title))
        column[figure] = value if held else f"**{value}**"
    return column


def _read(text: str) -> Table:
    lines = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in text.strip().splitlines()]
    names = lines[0][1:-1]
    return {name: {line[0]: line[place] for line in lines[2:]} for place, name in enumerate(names, 1)}


def _markdown(table: Table) -> str:
    columns = sorted(table, key=_jobs)
    bounds = {figure: bound for figure, (_, bound) in BOUNDED.items()}
    lines = [[FIGURE, *columns, BOUND], ["---"] * (len(columns) + 2)]
    for figure in (COMMIT, *EACH, *BOUNDED):
        lines.append([figure, *(table[name].get(figure, "") for name in columns), bounds.get(figure, "")])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _jobs(column: str) -> int:
    return int(column.partition(" ")[0].replace(",", ""))
