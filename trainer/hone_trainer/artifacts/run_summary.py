"""The opening of a run's report: better or worse than the base and by how much, the effort, what to do next. Pure.

Everything comes from the content of report.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hone_trainer.artifacts import usage
from hone_trainer.artifacts.servable import base_name
from hone_trainer.artifacts.usage import NextStep
from hone_trainer.reporting.html import digits

LABELS = {
    "loss": "Loss",
    "perplexity": "Perplexity",
    "token_accuracy": "Right next tokens",
    "exact_match": "Exact matches",
    "f1": "F1",
    "rouge_l": "ROUGE-L",
    "multiple_choice": "Right choices",
    "reward": "Reward",
    "reward_accuracy": "Preferred answer scores higher",
    "reward_margin": "Margin of the preferred answer",
    "kl": "KL from the base",
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
}
"""Metrics as people read them."""
RELATIVE = ("loss", "perplexity")
"""Metrics for which a change in percent is meaningful: they are above 0 and have a true 0."""
GIB = 2**30
NOT_MEASURED = "Not measured."


@dataclass(frozen=True)
class Effort:
    """Time and resources of a run, from the start of its process to the export."""

    seconds: float
    gpus: int
    """Over all pods; 0 if the run used CPUs."""
    peak_memory_bytes: int
    """Peak of one pod: GPU memory if it has a GPU."""
    tokens_per_second: float | None = None
    useful_tokens: float | None = None
    """Share of the computed tokens that are no padding."""
    mfu: float | None = None
    """Share of the GPUs' peak that training reached: model FLOP/s utilization."""
    estimated_memory_bytes: int | None = None
    """Of one pod, before it started."""
    start_step: int = 0
    """Step that this attempt resumed from: the numbers do not include earlier attempts."""
    finished: str = ""
    """Time in UTC, ISO 8601."""

    @property
    def gpu_hours(self) -> float:
        return self.seconds * self.gpus / 3600

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "gpu_hours": round(self.gpu_hours, 4)}


@dataclass(frozen=True)
class Headline:
    """The first sentences of a report."""

    title: str
    style: str
    """good, bad, or empty."""
    sentences: list[str]


@dataclass(frozen=True)
class Card:
    """One number or name."""

    value: str
    label: str
    style: str = ""


def label(name: str) -> str:
    """A metric's name for people; an unknown name is returned unchanged."""
    return LABELS.get(name, name)


def verdict(numbers: Sequence[Mapping[str, Any]], metric: str, rejected: str = "") -> Headline:
    """Whether the model is better than its base.

    Args:
        numbers: from report.json, each with its `verdict`: good, bad, or empty if the interval includes 0.
        metric: the one that decides.
        rejected: why the model failed a gate.
    """
    goal = [n for n in numbers if n["purpose"] == "HeldOut" and n["name"] == metric]
    sentences = [*map(change, goal), *_lost(numbers)]
    if rejected:
        return Headline("Rejected.", "bad", [rejected, *sentences])
    if not goal:
        return Headline(NOT_MEASURED, "", ["No held-out rows were given, so nothing was measured.", *sentences])
    if not any(n.get("changeLow") for n in goal):
        return Headline("Not compared.", "", [*sentences, "The base model's numbers are not known."])
    verdicts = {n["verdict"] for n in goal} - {""}
    if verdicts == {"good"}:
        return Headline("Better than the base.", "good", sentences)
    if verdicts == {"bad"}:
        return Headline("Worse than the base.", "bad", sentences)
    if verdicts:
        return Headline("Better on some rows, worse on others.", "bad", sentences)
    reason = "The interval includes 0: the difference may be chance. More held-out rows narrow it."
    return Headline("No clear difference from the base.", "", [*sentences, reason])


def change(number: Mapping[str, Any]) -> str:
    """A metric before and after, in a sentence."""
    name = f"{label(number['name'])} on {number['dataset']}"
    if not number.get("base"):
        return f"{name}: {digits(number['tuned'])}."
    before, after = float(number["base"]), float(number["tuned"])
    verb = "fell" if after < before else "rose" if after > before else "stayed"
    by = f", {percent(before, after)}" if number["name"] in RELATIVE and before and math.isfinite(after) else ""
    text = f"{name} {verb} from {digits(before)} to {digits(after)}{by}"
    if number.get("changeLow"):
        text += f" (95 % interval of the change: {digits(number['changeLow'])} to {digits(number['changeHigh'])})"
    return f"{text}."


def percent(before: float, after: float) -> str:
    """Relative change, e.g. −36.5 %."""
    return f"{100 * (after / before - 1):+.1f} %".replace("-", "\N{MINUS SIGN}")


def _lost(numbers: Sequence[Mapping[str, Any]]) -> list[str]:
    worse = [n for n in numbers if n["purpose"] != "HeldOut" and n["verdict"] == "bad"]
    names = ", ".join(f"{label(n['name'])} on {n['dataset']}" for n in worse)
    return [f"Worse at what should not be forgotten: {names}."] if worse else []


def cards(report: Mapping[str, Any], numbers: Sequence[Mapping[str, Any]], metric: str) -> list[Card]:
    """The numbers that people look for first. An unknown number has no card."""
    goal = next((n for n in numbers if n["purpose"] == "HeldOut" and n["name"] == metric and n.get("base")), None)
    summary = [_change(goal)] if goal else []
    if report["effort"]:
        summary += _effort(Effort(**{k: v for k, v in report["effort"].items() if k != "gpu_hours"}))
    summary.append(Card(f"{report['rows']:,}", "training rows"))
    summary.append(Card(f"{report['steps']:,}", "step" if report["steps"] == 1 else "steps"))
    summary.append(Card(base_name(report["plan"]["modelUri"]).rstrip("/").rpartition("/")[2], "base model"))
    return summary


def _change(number: Mapping[str, Any]) -> Card:
    before, after = float(number["base"]), float(number["tuned"])
    relative = number["name"] in RELATIVE and before and math.isfinite(after)
    value = percent(before, after) if relative else digits(after - before, sign=True)
    return Card(value, f"{label(number['name'])}: {digits(before)} → {digits(after)}", number["verdict"])


def _effort(effort: Effort) -> list[Card]:
    since = f", from step {effort.start_step:,}" if effort.start_step else ""
    items = [Card(duration(effort.seconds), f"load, train, evaluate{since}")]
    if effort.tokens_per_second:
        items.append(Card(digits(effort.tokens_per_second), "tokens per second"))
    if effort.useful_tokens is not None:
        items.append(Card(f"{effort.useful_tokens:.1%}".replace("%", " %"), "of computed tokens are no padding"))
    if effort.mfu is not None:
        items.append(Card(f"{effort.mfu:.1%}".replace("%", " %"), "of the GPUs' peak (MFU)"))
    memory = "GPU memory, peak of a pod" if effort.gpus else "memory, peak of a pod"
    if effort.estimated_memory_bytes:
        memory += f"; estimated: {digits(effort.estimated_memory_bytes / GIB, 3)}"
    items.append(Card(f"{digits(effort.peak_memory_bytes / GIB, 3)} GiB", memory))
    hours = f"GPU-hours on {effort.gpus:,} GPU{'s' if effort.gpus > 1 else ''}" if effort.gpus else "GPU-hours: on CPU"
    return [*items, Card(digits(effort.gpu_hours, 3) if effort.gpus else "0", hours)]


def duration(seconds: float) -> str:
    """E.g. 2 h 5 min, 12 min, 48 s."""
    if round(seconds) < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def next_steps(report: Mapping[str, Any], judgement: Headline) -> list[NextStep]:
    """What to do with the model, and with one that is not better."""
    return [*_improve(judgement), *usage.steps(report), *_measure(report)]


def _improve(judgement: Headline) -> list[NextStep]:
    if judgement.style == "good":
        return []
    if judgement.title == NOT_MEASURED:
        return [
            NextStep(
                "Keep some rows out of training (spec.splits of the Dataset) and train again to measure the model."
            )
        ]
    return [
        NextStep(
            "Read the answers and the curves below. If the held-out loss rises while the training loss falls, use "
            "fewer epochs or a lower learningRate. If both stay high, use more steps or a higher learningRate. Good "
            "rows help in either case."
        )
    ]


def _measure(report: Mapping[str, Any]) -> list[NextStep]:
    if report["form"] == "GGUF" or report["plan"]["method"] not in ("SFT", "DAPT"):
        return []
    command = "python -m hone_trainer evaluate . --data rows.jsonl --base FOLDER_OF_THE_BASE"
    return [NextStep("Measure it on other rows:", command)]
