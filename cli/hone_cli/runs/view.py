"""What people want to know of a run, from its FineTuneJob. Pure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hone_api.estimate.gpu_time import gpus_of, seconds_held
from hone_api.words.phases import stage_words
from hone_api.words.states import GATES, ConditionType, JobPhase

# field of status.progress, its name for people, digits after the point
NUMBERS = (("loss", "loss", 2), ("evalLoss", "held-out loss", 2), ("tokensPerSecond", "tokens/s", 0), ("eta", "ETA", 0))
STAGES = (ConditionType.ACCEPTED, *GATES, ConditionType.ADMITTED, ConditionType.RUNNING)
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class RunView:
    """What people want to know of a run now."""

    what: str
    step: int = 0
    total: int | None = None
    numbers: str = ""

    def line(self) -> str:
        """All of it on one line."""
        steps = f" {self.step}/{self.total} {100 * self.step // self.total}%" if self.total else ""
        return f"{self.what}{steps}{'  ' + self.numbers if self.numbers else ''}"


def view(job: Mapping[str, Any]) -> RunView:
    """The stage the trainer is in; before that, the first condition that does not hold yet."""
    status = job.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    progress = status.get("progress") or {}
    running = conditions.get(ConditionType.RUNNING, {}).get("status") == "True"
    if not (running and progress.get("stage")):
        closed = next((c for gate in STAGES if (c := conditions.get(gate)) and c["status"] != "True"), None)
        words = f"{closed['type']}: {closed['reason']}. {closed.get('message', '')}".strip() if closed else "starting"
        return RunView(status.get("phase", JobPhase.PENDING) if running else words)
    shown = "  ".join(
        f"{label} {_rounded(progress[key], digits)}" for key, label, digits in NUMBERS if progress.get(key)
    )
    rows = (progress.get("rows", 0), progress["totalRows"]) if progress.get("totalRows") else None
    return RunView(
        stage_words(progress["stage"]), *(rows or (progress.get("step", 0), progress.get("totalSteps"))), shown
    )


def _rounded(text: str, digits: int) -> str:
    try:
        return f"{float(text):.{digits}f}"
    except ValueError:  # a duration
        return text


def is_over(job: Mapping[str, Any]) -> bool:
    """Whether nothing more happens by itself: the run has ended, or its spec cannot run."""
    conditions = (job.get("status") or {}).get("conditions", ())
    over = (ConditionType.FINISHED, ConditionType.STALLED)
    return any(each["type"] in over and each["status"] == "True" for each in conditions)


def has_failed(job: Mapping[str, Any]) -> bool:
    """Whether it is over without a model."""
    conditions = {each["type"]: each["status"] for each in (job.get("status") or {}).get("conditions", ())}
    return is_over(job) and conditions.get(ConditionType.SUCCEEDED) != "True"


def ending(job: Mapping[str, Any], options: str = "") -> Iterator[str]:
    """How a run that is over ended, and what to do.

    Args:
        options: of the commands that are named.
    """
    status, name = job.get("status") or {}, job["metadata"]["name"]
    if not has_failed(job):
        yield f"{name} has succeeded: ModelVersion {status.get('modelVersionName')}"
        yield f"Next: hone chat {model_of(job)}{options}"
        return
    if failed := status.get("failure"):
        yield f"{name} has failed: {failed['code']}: {failed.get('message', '')}"
        if failed.get("hint"):
            yield str(failed["hint"])
        yield f"More: hone explain {failed['code']}; hone logs {name}{options}"
        return
    stalled: Mapping[str, Any] = next((c for c in status["conditions"] if c["type"] == ConditionType.STALLED), {})
    yield f"{name} cannot run: {stalled.get('reason')}: {stalled.get('message', '')}"


def sentences(lines: Iterable[str]) -> str:
    """Lines such as those of `ending` as one."""
    return ". ".join(line.rstrip(".") for line in lines)


def gpu_hours(job: Mapping[str, Any]) -> float | None:
    """GPU-hours that its attempts held so far, as `spec.budget` counts them; None: it uses no GPU."""
    return seconds_held(job, datetime.now(UTC)) / 3600 if gpus_of(job) else None


def model_of(job: Mapping[str, Any]) -> str:
    """The model that it trains; empty where an object of another release does not say."""
    return str((job["spec"].get("output") or {}).get("modelName") or "")


def curves(job: Mapping[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each curve in the status, by the metric's name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for series in (job.get("status") or {}).get("metrics") or ():
        points = found[series["name"]] = []
        for point in (series.get("curve") or "").split():
            step, _, text = point.partition(":")
            with contextlib.suppress(ValueError):  # of another release
                points.append((int(step), float(text)))
    return found


def spark(points: list[tuple[int, float]], width: int) -> str:
    """The values as one line of blocks, the lowest first of them; one value has no shape."""
    numbers = [number for _, number in points if math.isfinite(number)][-width:]
    if len(numbers) < 2:
        return ""
    low, span = min(numbers), max(numbers) - min(numbers) or 1.0
    return "".join(_BLOCKS[round((number - low) / span * (len(_BLOCKS) - 1))] for number in numbers)
