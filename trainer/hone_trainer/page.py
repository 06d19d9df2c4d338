"""The report of a run as one HTML page in its artifact, from the same numbers as report.json."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_trainer import pages, plots, suite
from hone_trainer.plots import Plot

if TYPE_CHECKING:
    from jinja2 import Template

    from hone_trainer.methods.base import Method

NAME = "report.html"
APART = ("grad_norm", "learning_rate")
"""Curves in a figure of their own."""


def render(report: Mapping[str, Any], curves: Sequence[Mapping[str, Any]], method: Method) -> str:
    """The page.

    Args:
        report: the content of report.json.
        curves: transformers' `state.log_history`.
    """
    plan = report["plan"]
    return _template().render(
        report=report,
        plan=plan,
        numbers=[_judged(number, method, report["lowest"]) for number in report["numbers"]],
        figures=_figures(curves),
        curve=_rows(report["interpolation"]),
        settings=json.dumps({"plan": plan, "resolved": report["resolved"]}, indent=2, ensure_ascii=False),
    )


def _judged(number: Mapping[str, Any], method: Method, lowest: Collection[str]) -> dict[str, Any]:
    """With the change, and whether it is for the better beyond chance, for the worse, or neither."""
    if number["purpose"] == "Harness":
        end: str = "Lowest" if suite.title(number["name"], number["dataset"]) in lowest else "Highest"
    else:
        end = method.metrics.get(number["name"]) or suite.best(number["name"])
    sign = 1 if end == "Highest" else -1
    low, high = (sign * float(number[key]) if number.get(key) else 0.0 for key in ("changeLow", "changeHigh"))
    verdict = "good" if min(low, high) > 0 else "bad" if max(low, high) < 0 else ""
    change = float(number["tuned"]) - float(number["base"]) if number.get("base") else None
    return {**number, "change": change, "verdict": verdict}


def _figures(curves: Sequence[Mapping[str, Any]]) -> list[tuple[str, Plot]]:
    """Training and held-out loss in one figure, every other metric that was evaluated in its own."""

    def points(name: str) -> list[tuple[float, float]]:
        return [(entry["step"], float(entry[name])) for entry in curves if name in entry]

    evaluated = [name for entry in curves for name in entry if name.startswith("eval_") and name != "eval_loss"]
    wanted = {"loss": {"training": points("loss"), "held out": points("eval_loss")}}
    wanted |= {name.removeprefix("eval_"): {"held out": points(name)} for name in dict.fromkeys(evaluated)}
    wanted |= {name: {"training": points(name)} for name in APART}
    return [(title, made) for title, parts in wanted.items() if (made := plots.plot(parts))]


def _rows(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"weight": p["weight"], "metrics": {name: f"{v:.4f}" for name, v in p["metrics"].items()}} for p in points]


@cache
def _template() -> Template:
    return pages.template(Path(__file__).with_name("page.html.j2"))
