"""What the demo ends with: the ModelVersion, what was gained, one answer before and after, and the time it took."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hone_api.states import ConditionType

ENDINGS = {"Repeats": " loops: it repeats itself to the end", "Cut": " cut at the token limit"}
"""Marks of answers that did not end by themselves."""


def show(job: Mapping[str, Any], version: Mapping[str, Any], install: float) -> None:
    """Print it to standard output. `install` is in seconds."""
    out = Console(highlight=False)
    out.print(_version(version))
    out.print(_evaluation(version))
    for sample in version["spec"]["evaluation"].get("samples", [])[:1]:
        out.print(_answers(sample))
    if warnings := advice(job):
        out.print(Panel(Text(warnings), title="Warnings", title_align="left", border_style="yellow"))
    out.print(_times(job, version, install))


def _version(version: Mapping[str, Any]) -> Table:
    spec = version["spec"]
    lineage = spec["lineage"]
    table = _table(f"ModelVersion {version['metadata']['name']}", "", "")
    base = lineage["baseModel"]
    table.add_row("base", f"{base['uri']}@{(base.get('commit') or '')[:12]}")
    for data in lineage["datasets"]:
        table.add_row("data", f"{data['name']}/{data['split']} {data['digest'][:19]}")
    table.add_row("method", f"{lineage['method']}, {lineage.get('steps')} steps, seed {lineage['seed']}")
    for artifact in spec["artifacts"]:
        table.add_row(artifact["format"], f"{artifact['uri']}  {artifact['sizeBytes'] / 1e6:.1f} MB")
    return table


def _evaluation(version: Mapping[str, Any]) -> Table:
    table = _table("Evaluation on rows that were not trained on", "metric", "base", "tuned", "change", "rows")
    for number in version["spec"]["evaluation"].get("numbers", []):
        base, tuned = number.get("base"), number["tuned"]
        table.add_row(number["name"], base or "", tuned, change(base, tuned), str(number.get("rows") or ""))
    return table


def change(base: str | None, tuned: str) -> str:
    """Relative change in percent, e.g. -38 %; empty where there is none."""
    try:
        return f"{100 * (float(tuned) / float(base or '') - 1):+.0f} %"
    except (ValueError, ZeroDivisionError):
        return ""


def advice(job: Mapping[str, Any]) -> str:
    """What looks wrong in the run, though it succeeded; empty without warnings."""
    conditions = (job.get("status") or {}).get("conditions", ())
    return next(
        (str(c["message"]) for c in conditions if c["type"] == ConditionType.ADVISED and c["status"] == "True"), ""
    )


def _answers(sample: Mapping[str, Any]) -> Panel:
    parts = (("question", "prompt"), ("base", "base"), ("tuned", "tuned"), ("reference", "reference"))
    text = Text()
    for label, key in parts:
        if sample.get(key):
            text.append(f"{label}:", style="bold").append(ENDINGS.get(sample.get(f"{key}Ending", ""), ""), style="red")
            text.append(f"\n{sample[key].strip()}\n\n")
    text.rstrip()
    return Panel(text, title="One question neither has seen", title_align="left")


def _times(job: Mapping[str, Any], version: Mapping[str, Any], install: float) -> Table:
    created = _time(job["metadata"]["creationTimestamp"])
    status = job["status"]
    start, end = _time(status.get("startTime")), _time(status.get("completionTime"))
    verified = _time(version.get("status", {}).get("verifiedAt"))
    table = _table("Where the time went", "", "")
    table.add_row("cluster, images, chart", duration(install))
    table.add_row("data and base model into the store", _between(created, start))
    table.add_row("training and evaluation", _between(start, end))
    table.add_row("verifying every file", _between(end, verified))
    total = install + ((verified or end or created) - created).total_seconds() if created else install
    table.add_row("total", duration(total))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=any(columns), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _between(start: datetime | None, end: datetime | None) -> str:
    return duration((end - start).total_seconds()) if start and end else ""


def duration(seconds: float) -> str:
    """E.g. 9m 12s."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"
