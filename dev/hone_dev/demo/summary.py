"""What the demo ends with: the ModelVersion, answers before and after, what was gained, and the time it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hone_api.words.phases import BEFORE_FIRST_STEP, IMAGE, PHASES, QUEUED, SCHEDULED
from hone_api.words.states import ConditionType

ENDINGS = {"Repeats": "loops: it repeats itself to the end", "Cut": "cut at the token limit"}
"""Marks of answers that did not end by themselves."""


SHOWN = 3
"""Questions, at most."""


def show(job: Mapping[str, Any], version: Mapping[str, Any], cluster: float, chart: float) -> None:
    """Print it to standard output. `cluster` and `chart` are the seconds until each was ready."""
    out = Console(highlight=False)
    out.print(_version(version))
    if samples := version["spec"]["evaluation"].get("samples", []):
        out.print(_answers(samples[:SHOWN]))
    out.print(_evaluation(version))
    if warnings := advice(job):
        out.print(Panel(Text(warnings), title="Warnings", title_align="left", border_style="yellow"))
    out.print(_times(job, version, cluster, chart))
    if sentence := before_first_step(job):
        out.print(sentence)


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
        rows = str(number.get("rows") or "")
        table.add_row(number["name"], four_digits(base), four_digits(tuned), change(base, tuned), rows)
    return table


def four_digits(number: str | None) -> str:
    """A number of an evaluation as people read it; empty without one."""
    return format(float(number), ".4g") if number else ""


def change(base: str | None, tuned: str) -> str:
    """Relative change in percent, e.g. -38 %; from 0 the difference, e.g. +0.95; empty where there is none."""
    try:
        before, after = float(base or ""), float(tuned)
    except ValueError:
        return ""
    return f"{100 * (after / before - 1):+.0f} %" if before else f"{after:+.2f}"


def advice(job: Mapping[str, Any]) -> str:
    """What looks wrong in the run, though it succeeded; empty without warnings."""
    conditions = (job.get("status") or {}).get("conditions", ())
    return next(
        (str(c["message"]) for c in conditions if c["type"] == ConditionType.ADVISED and c["status"] == "True"), ""
    )


def _answers(samples: Sequence[Mapping[str, Any]]) -> Table:
    """Questions, and what base and tuned model answer, side by side."""
    table = _table("Questions that neither model has seen", "question", "base", "tuned")
    table.show_lines = True
    for sample in samples:
        table.add_row(Text(sample["prompt"].strip()), _answer(sample, "base"), _answer(sample, "tuned"))
    return table


def _answer(sample: Mapping[str, Any], model: str) -> Text:
    """A model's answer, how it ended unless by itself, and whether it is the row's own."""
    text, own = (sample.get(model) or "").strip(), (sample.get("reference") or "").strip()
    shown = Text(text)
    if ending := ENDINGS.get(sample.get(f"{model}Ending", "")):
        shown.append(f"\n({ending})", style="red")
    if own:
        shown.append("\n✓ right" if text == own else "", style="green")
        if model == "tuned" and text != own:
            shown.append(f"\nthe row's own answer: {own}", style="yellow")
    return shown


def _times(job: Mapping[str, Any], version: Mapping[str, Any], cluster: float, chart: float) -> Table:
    created = _time(job["metadata"]["creationTimestamp"])
    status = job["status"]
    start, end = _time(status.get("startTime")), _time(status.get("completionTime"))
    verified = _time(version.get("status", {}).get("verifiedAt"))
    table = _table("Where the time went", "", "")
    table.add_row("cluster, images, model hub", duration(cluster))
    table.add_row("chart", duration(chart))
    table.add_row("data and base model into the store", _between(created, start))
    table.add_row("training and evaluation", _between(start, end))
    table.add_row("verifying every file", _between(end, verified))
    installed = cluster + chart
    total = installed + ((verified or end or created) - created).total_seconds() if created else installed
    table.add_row("total", duration(total))
    return table


def before_first_step(job: Mapping[str, Any]) -> str:
    """What the last attempt did before its first step; empty if its trainer did not measure that."""
    attempts = job["status"].get("attempts") or [{}]
    seconds, held = attempts[-1].get("phaseSeconds") or {}, attempts[-1].get("heldSecondsBeforeFirstStep")
    if held is None:
        return ""
    before = [phase for phase in PHASES if phase.name in (QUEUED, SCHEDULED, IMAGE, *BEFORE_FIRST_STEP)]
    parts = [f"{phase.words} {duration(seconds[phase.name])}" for phase in before if seconds.get(phase.name)]
    gpus = ((job.get("spec") or {}).get("resources") or {}).get("gpusPerNode", 0)
    unit = "GPU-seconds were held" if gpus else "seconds passed in its pod"
    return f"Before the first step: {', '.join(parts)}. {held} {unit}."


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
