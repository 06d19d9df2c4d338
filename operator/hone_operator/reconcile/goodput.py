"""Goodput of a run: how much of its time went into steps that count, and what the rest was spent on.

As defined by "ML Productivity Goodput" (Google, 2024): scheduling x runtime x program goodput. The last, the share of
the hardware's peak that a step reaches, is not measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from hone_api.phases import (
    ENCODING,
    EVALUATING,
    EVALUATING_BASE,
    EXPORTING,
    FIRST_STEP,
    IMAGE,
    LOADING,
    OTHER,
    QUEUED,
    SAVING,
    SCHEDULED,
    TRAINING,
)
from hone_api.states import AttemptOutcome
from hone_api.status_json import AttemptJson, BadputJson, GoodputJson
from hone_operator.times import read_time

QUEUE, LOST_STEPS, RESTART = "queue", "lostSteps", "restart"
KINDS: Mapping[str, tuple[str, ...]] = {
    QUEUE: (QUEUED, SCHEDULED),
    "image": (IMAGE,),
    "loading": (LOADING, ENCODING),
    "firstStep": (FIRST_STEP,),
    "evaluation": (EVALUATING_BASE, EVALUATING),
    "saving": (SAVING,),
    LOST_STEPS: (),
    RESTART: (),
    "exporting": (EXPORTING,),
    "other": (OTHER,),
}
"""Kinds of badput, and the phases that count to each."""
PRODUCTIVE = "productive"
"""The kind of the time in steps that count."""


def spent(records: Sequence[AttemptJson]) -> list[dict[str, int]]:
    """Seconds of each attempt by kind of badput, or productive; the time between two counts to the later one. Pure."""
    padded = [None, *records, None]
    return [_spent(before, record, after) for before, record, after in zip(padded, records, padded[2:], strict=False)]


def _spent(before: AttemptJson | None, record: AttemptJson, after: AttemptJson | None) -> dict[str, int]:
    phases = cast(Mapping[str, int], record.get("phases") or {})
    seconds = {kind: sum(phases.get(part, 0) for part in parts) for kind, parts in KINDS.items()}
    seconds[LOST_STEPS] = _lost(record, after) if after else 0
    seconds[RESTART] = _between(before, record) if before else 0
    return {**seconds, PRODUCTIVE: phases.get(TRAINING, 0) - seconds[LOST_STEPS]}


def goodput(records: Sequence[AttemptJson]) -> GoodputJson | None:
    """Goodput over the attempts so far; None before anything is known about them. Pure."""
    attempts = spent(records)
    badput = {kind: sum(seconds[kind] for seconds in attempts) for kind in KINDS}
    productive = sum(seconds[PRODUCTIVE] for seconds in attempts)
    total = productive + sum(badput.values())
    held = total - badput[QUEUE]
    if not productive + badput[LOST_STEPS]:
        return None
    return {
        "ratio": _ratio(productive, total),
        "scheduling": _ratio(held, total),
        "runtime": _ratio(productive, held),
        "seconds": total,
        "productiveSeconds": productive,
        "badput": cast(BadputJson, {kind: seconds for kind, seconds in badput.items() if seconds}),
    }


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.3f}"


def _lost(before: AttemptJson, after: AttemptJson) -> int:
    """Seconds in which an attempt trained steps that the next one trained again."""
    steps = before.get("endStep", 0) - before.get("startStep", 0)
    seconds = (before.get("phases") or {}).get("training", 0)
    return round(seconds * min(1.0, after.get("lostSteps", 0) / steps)) if steps > 0 else 0


def _between(before: AttemptJson, after: AttemptJson) -> int:
    """Seconds between two attempts, unless the user wanted them."""
    if before["outcome"] == AttemptOutcome.SUSPENDED:
        return 0
    end, start = read_time(_text(before, "endTime")), read_time(_text(after, "startTime"))
    return max(0, round((start - end).total_seconds())) if end and start else 0


def _text(record: AttemptJson, field: str) -> str:
    value: Any = record.get(field)
    return value or ""
