"""The report of a run as one HTML page in its artifact, from the numbers in report.json."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_api.words.progress_numbers import PROGRESS_NUMBERS
from hone_trainer.artifacts import plots, run_summary
from hone_trainer.artifacts.plots import Plot
from hone_trainer.reporting import html
from hone_trainer.scoring import probe_suite

if TYPE_CHECKING:
    from jinja2 import Template

    from hone_trainer.training.method import TrainingMethod

NAME = "report.html"
TRAINING, HELD_OUT = "training", "held out"
"""Names of the curves in a figure."""
DRAWN = tuple(number.name for number in PROGRESS_NUMBERS if number.figure)
"""Numbers of a run's progress with a figure of their own."""


def render(report: Mapping[str, Any], curves: Sequence[Mapping[str, Any]], method: TrainingMethod) -> str:
    """The page.

    Args:
        report: the content of report.json.
        curves: transformers' `state.log_history`, after the base's values at step 0.
    """
    plan, metric = report["plan"], method.goal.metric
    numbers = [_judged(number, method, report["lowest"]) for number in report["numbers"]]
    verdict = run_summary.verdict(numbers, metric, report["rejected"])
    return _template().render(
        report=report,
        plan=plan,
        verdict=verdict,
        cards=run_summary.cards(report, numbers, metric),
        next_steps=run_summary.next_steps(report, verdict),
        numbers=numbers,
        figures=_figures(curves),
        base_known=any(entry["step"] == 0 for entry in curves),
        curve=report["interpolation"],
        label=run_summary.label,
        settings=json.dumps({"plan": plan, "resolved": report["resolved"]}, indent=2, ensure_ascii=False),
    )


def _judged(number: Mapping[str, Any], method: TrainingMethod, lowest: Collection[str]) -> dict[str, Any]:
    """The number with its change, and a verdict: better beyond chance, worse, or neither."""
    if number["purpose"] == "Harness":
        end: str = "Lowest" if probe_suite.title(number["name"], number["dataset"]) in lowest else "Highest"
    else:
        end = method.metrics.get(number["name"]) or probe_suite.best(number["name"])
    sign = 1 if end == "Highest" else -1
    low, high = (sign * float(number[key]) if number.get(key) else 0.0 for key in ("changeLow", "changeHigh"))
    verdict = "good" if min(low, high) > 0 else "bad" if max(low, high) < 0 else ""
    change = float(number["tuned"]) - float(number["base"]) if number.get("base") else None
    return {**number, "change": change, "verdict": verdict}


def _figures(curves: Sequence[Mapping[str, Any]]) -> list[tuple[str, Plot]]:
    """Training and held-out loss in one large figure, every other metric in a small figure of its own."""

    def points(name: str) -> list[tuple[float, float]]:
        return [(entry["step"], float(entry[name])) for entry in curves if name in entry]

    evaluated = [name for entry in curves for name in entry if name.startswith("eval_") and name != "eval_loss"]
    curves_by_name = {"loss": {TRAINING: points("loss"), HELD_OUT: points("eval_loss")}}
    curves_by_name |= {name.removeprefix("eval_"): {HELD_OUT: points(name)} for name in dict.fromkeys(evaluated)}
    curves_by_name |= {name: {TRAINING: points(name)} for name in DRAWN}
    sizes = {name: plots.LARGE if name == "loss" else plots.SMALL for name in curves_by_name}
    return [(name, figure) for name, parts in curves_by_name.items() if (figure := plots.plot(parts, sizes[name]))]


@cache
def _template() -> Template:
    return html.template(Path(__file__).with_name("run_page.html.j2"))
