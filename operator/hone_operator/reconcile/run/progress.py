"""From the trainer's reports to status.progress and the thinned curves of status.metrics."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from pydantic.alias_generators import to_camel

from hone_api.contract.report import TrainingResult
from hone_api.contract.status_json import JobProgressJson, MetricSeriesJson, SecondsRangeJson
from hone_api.words.phases import FIRST_STEP, TRAINING
from hone_api.words.progress_numbers import OF_STAGE, PROGRESS_NUMBERS
from hone_operator.progress.numbers import Latest, number

MAX_POINTS = 64
STEP = re.compile(r"[0-9]{1,16}")
ENOUGH_STEPS = 4
"""Steps of an attempt after which their mean time is a better estimate than the GPU's peak."""
WORTH_TELLING = 5
"""Consecutive points of a curve that are not a coincidence."""
CURVES = {number.name: number.json_name for number in PROGRESS_NUMBERS if number.curve}
"""Name of a curve -> field of status.progress."""


class CurvePoint(NamedTuple):
    """A value of a curve, and its optimiser step."""

    step: int
    value: str


def finished(previous: JobProgressJson, result: TrainingResult) -> JobProgressJson:
    """status.progress of a successful run: the last report, completed by the result."""
    out = without_stage(previous)
    out |= {"step": result.steps, "totalSteps": result.steps, "percent": 100}
    out["summary"] = f"{result.steps}/{result.steps} 100%"
    if result.tokens_per_second:
        out["tokensPerSecond"] = number(result.tokens_per_second) or result.tokens_per_second
    if result.train_loss:
        out["loss"] = number(result.train_loss) or result.train_loss
    for measured in result.numbers:
        if measured.name == "loss":
            out["evalLoss"] = number(measured.tuned) or measured.tuned
            break
    return out


def without_stage(progress: JobProgressJson) -> JobProgressJson:
    """The progress of a run that is in no stage, because no pod of it runs."""
    of_stage = {"eta", "stage", *map(to_camel, OF_STAGE)}
    return cast(JobProgressJson, {name: value for name, value in progress.items() if name not in of_stage})


def seconds_range(report: Latest) -> SecondsRangeJson | None:
    """status.estimatedSecondsRange, by the steps that the attempt has measured; None where these are too few.

    Steps of earlier attempts are taken at the mean of this one's. The time left has the error of a mean: if steps
    differ as much as they take, it falls with the square root of their number.
    """
    start, trained, left = report.start_step or 0, report.phases.get(TRAINING), report.eta_seconds
    measured = report.step - start
    if report.progress.stage != "Training" or measured < ENOUGH_STEPS or not trained or left is None:
        return None
    done = report.phases.get(FIRST_STEP, 0) + trained * (1 + start / (measured - 1))
    error = left / math.sqrt(measured)
    return {"low": math.floor(done + left - error) or 1, "high": math.ceil(done + left + error)}


def warnings(curves: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warnings from the newest points of the curves of a running run.

    Args:
        curves: from status.metrics.
    """
    by_name = {series["name"]: points(series) for series in curves}
    clipped = [float(point.value) for point in by_name.get("clipped_ratio", ())[-WORTH_TELLING:]]
    if len(clipped) < WORTH_TELLING or not all(value >= 1 for value in clipped):
        return []
    return [
        "Every sampled answer is cut at grpo.maxCompletionLength: raise it, or the model never sees an answer end. "
        "With grpo.maskTruncatedCompletions nothing is learned from cut answers, and the run ends as NoGradient."
    ]


def extend_curves(previous: Sequence[Mapping[str, Any]], progress: Mapping[str, Any]) -> list[MetricSeriesJson]:
    """status.metrics with the newest values; thinned by dropping every second point when full."""
    old = {series["name"]: points(series) for series in previous}
    reached = progress.get("step", 0)
    newest: dict[str, Any] = dict.fromkeys(old)
    newest |= {name: progress.get(field) for name, field in CURVES.items()} | (progress.get("metrics") or {})
    for name, value in newest.items():
        curve = old.setdefault(name, [])
        is_eval = name.startswith("eval_")
        step = progress.get("evalStep" if is_eval else "lossStep", reached)
        # A resumed attempt repeats some steps: its values replace those after its start.
        while curve and curve[-1].step > reached:
            curve.pop()
        repeated = curve and (curve[-1].step >= step or (is_eval and curve[-1].value == value))
        if value is not None and not repeated and step <= reached:
            curve.append(CurvePoint(step, value))
        if len(curve) > MAX_POINTS:
            old[name] = curve[:-1:2] + curve[-1:]
    return [{"name": name, "curve": _as_text(curve)} for name, curve in old.items() if curve]


def points(series: Mapping[str, Any]) -> list[CurvePoint]:
    """The points of an entry of status.metrics, of this or an earlier version; unreadable ones are left out.

    Args:
        series: `curve` is text; earlier versions wrote a list, `points`.
    """
    pairs = [part.partition(":")[::2] for part in str(series.get("curve") or "").split()]
    pairs += [(str(point.get("step")), str(point.get("value"))) for point in series.get("points") or ()]
    read = [(step, number(value)) for step, value in pairs if STEP.fullmatch(step)]
    return [CurvePoint(int(step), value) for step, value in read if value is not None]


def _as_text(curve: Sequence[CurvePoint]) -> str:
    return " ".join(f"{point.step}:{point.value}" for point in curve)
