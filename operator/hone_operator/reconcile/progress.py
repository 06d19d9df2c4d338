"""Reports of the trainer -> status.progress and the decimated curves of status.metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from hone_api.report import TrainingResult

MAX_POINTS = 64
WORTH_TELLING = 5
"""Points of a curve, one after the other, that are no accident."""
CURVES = {"loss": "loss", "eval_loss": "evalLoss", "learning_rate": "learningRate"}
"""Name of a curve -> field of status.progress."""


def finished(previous: Mapping[str, Any], result: TrainingResult) -> dict[str, Any]:
    """status.progress of a run that succeeded: what was reported last, closed by the result."""
    out = {k: v for k, v in previous.items() if k not in ("eta", "stage")}
    out |= {"step": result.steps, "totalSteps": result.steps, "percent": 100}
    out["summary"] = f"{result.steps}/{result.steps} 100%"
    if result.train_loss:
        out["loss"] = result.train_loss
    for number in result.numbers:
        if number.name == "loss":
            out["evalLoss"] = number.tuned
            break
    return out


def warnings(curves: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the newest points of the curves say of a run that is under way.

    Args:
        curves: of status.metrics.
    """
    by_name = {series["name"]: series["points"] for series in curves}
    clipped = [float(point["value"]) for point in by_name.get("clipped_ratio", ())[-WORTH_TELLING:]]
    if len(clipped) < WORTH_TELLING or not all(value >= 1 for value in clipped):
        return []
    return [
        "Every sampled answer is cut at grpo.maxCompletionLength: raise it, or the model never sees an answer end. "
        "With grpo.maskTruncatedCompletions nothing is learned from cut answers, and the run ends as NoGradient."
    ]


def curves(previous: Sequence[Mapping[str, Any]], progress: Mapping[str, Any]) -> list[dict[str, Any]]:
    """status.metrics with the newest values; thinned by dropping every second point when full."""
    old = {s["name"]: list(s.get("points") or ()) for s in previous}
    step = progress.get("step", 0)
    newest = {name: progress.get(field) for name, field in CURVES.items()} | (progress.get("metrics") or {})
    for name, value in newest.items():
        points = old.setdefault(name, [])
        # A resumed attempt goes over some steps again: its values replace those after its start.
        while points and points[-1]["step"] > step:
            points.pop()
        repeated = points and (
            points[-1]["step"] == step or (name.startswith("eval_") and points[-1]["value"] == value)
        )
        if value is not None and not repeated:
            points.append({"step": step, "value": value})
        if len(points) > MAX_POINTS:
            old[name] = points[:-1:2] + points[-1:]
    return [{"name": name, "points": points} for name, points in old.items() if points]
