"""The picture of the README, from a real run: its loss and what base and tuned model answer to an unseen question.

    .venv/bin/python bench/learning.py examples/01-first-model --work /tmp/run
    .venv/bin/python -m hone_dev.generate.picture /tmp/run/ops-commands-seed-0/out/adapter --sample 2 \\
        > docs/images/first-model.svg

Nothing is drawn that the artifact does not hold: `report.json` has the numbers and answers, `metrics.jsonl` the curves.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hone_trainer.artifacts import plots

SIZE = plots.Size(864, 240)
STYLES = {"training": "train", "held out": "held"}
WIDTH, MARGIN, LINE, MOST_LINES = 880, 24, 20, 6
CHARACTER = 7.2
"""Mean width of a character at 14 px, rather too much."""


@dataclass(frozen=True)
class Box:
    """A titled card with lines of text, in units of the drawing."""

    title: str
    lines: list[str]
    x: int
    y: int
    width: int

    @property
    def height(self) -> int:
        return 36 + LINE * len(self.lines)


def render(report: Mapping[str, Any], curves: Sequence[Mapping[str, Any]], sample: int = 0) -> str:
    """The SVG.

    Args:
        report: the content of report.json; its numbers must have a loss of base and tuned model.
        curves: the lines of metrics.jsonl.
        sample: index of the answers that are shown.
    """
    plan = report["plan"]
    loss = next(n for n in report["numbers"] if n["name"] == "loss" and n["purpose"] == "HeldOut")
    held_out = [(0.0, float(loss["base"])), *((s, y) for s, y in points(curves, "eval_loss") if s)]
    plot = plots.plot({"training": points(curves, "loss"), "held out": held_out}, SIZE)
    boxes = answers(report["samples"][sample], top=SIZE.height + 92)
    right = right_answers(report["numbers"])
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    base, adapter = plan["modelUri"].rpartition("/")[2], plan.get("adapter", {}).get("type", "None")
    trained = "all weights" if adapter == "None" else adapter
    before, after, low, high = (f"{float(loss[key]):.2f}" for key in ("base", "tuned", "changeLow", "changeHigh"))
    return environment.get_template("picture.svg.j2").render(
        title=f"{plan['output']['modelName']}: {base} after {report['steps']} steps of {plan['method']} ({trained})",
        result=f"{right}Loss on {loss['rows']} held-out rows: {before} before training, {after} after"
        + ("" if right else f". 95 % interval of the change: {low} to {high}"),
        plot=plot,
        styles=STYLES,
        boxes=boxes,
        height=max(box.y + box.height for box in boxes) + MARGIN,
    )


def right_answers(numbers: Sequence[Mapping[str, Any]]) -> str:
    """The share of right answers, as a sentence before another; empty where it was not measured."""
    found = next((n for n in numbers if n["name"] == "exact_match" and n["purpose"] == "HeldOut"), None)
    return f"Right answers: {float(found['base']):.0%} before, {float(found['tuned']):.0%} after. " if found else ""


def points(curves: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) of one metric."""
    return [(entry["step"], float(entry[name])) for entry in curves if name in entry]


def answers(sample: Mapping[str, Any], top: int) -> list[Box]:
    """The question, below it base and tuned model side by side and equally high, last the row's own answer."""
    inner, gap = WIDTH - 2 * MARGIN, 16
    half = (inner - gap) // 2
    question = Box("A question from the held-out rows", wrapped(sample["prompt"], inner), MARGIN, top, inner)
    texts = [wrapped(sample[key], half) for key in ("base", "tuned")]
    most = max(map(len, texts))
    lines = [text + [""] * (most - len(text)) for text in texts]
    y = question.y + question.height + gap
    base = Box("Base model", lines[0], MARGIN, y, half)
    tuned = Box("Tuned model", lines[1], MARGIN + half + gap, y, half)
    if not sample.get("reference"):
        return [question, base, tuned]
    own = wrapped(sample["reference"], inner)
    return [question, base, tuned, Box("The row's own answer", own, MARGIN, y + base.height + gap, inner)]


def wrapped(text: str, width: int) -> list[str]:
    """Lines that fit into a card of this width; the end of a long text is left out and marked."""
    characters = int((width - 28) / CHARACTER)
    return textwrap.wrap(" ".join(text.split()), characters, max_lines=MOST_LINES, placeholder=" …")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="folder of an exported model")
    parser.add_argument("--sample", type=int, default=0, help="which of its answers")
    options = parser.parse_args()
    report = json.loads((options.artifact / "report.json").read_text())
    curves = [json.loads(line) for line in (options.artifact / "metrics.jsonl").read_text().splitlines()]
    sys.stdout.write(render(report, curves, options.sample) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
