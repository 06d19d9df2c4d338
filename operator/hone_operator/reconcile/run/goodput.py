"""Goodput of a run: how much of its time went into steps that count, and what the rest was spent on.

As defined by "ML Productivity Goodput" (Google, 2024): scheduling x runtime x program goodput. The last, the share of
the hardware's peak that a step reaches, is not measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from hone_api.contract.status_json import AttemptJson, BadputJson, GoodputJson
from hone_api.words.phases import (
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
    seconds_of,
)
from hone_api.words.states import AttemptOutcome
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
    befores = [None, *records]
    return [_spent(*each) for each in zip(befores, records, _lost(records), strict=False)]


def _spent(before: AttemptJson | None, record: AttemptJson, lost: int) -> dict[str, int]:
    phases = seconds_of(record)
    seconds = {kind: sum(phases.get(part, 0) for part in parts) for kind, parts in KINDS.items()}
    seconds[LOST_STEPS] = lost
    seconds[RESTART] = _between(before, record) if before else 0
    return {**seconds, PRODUCTIVE: phases.get(TRAINING, 0) - lost}


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
        "badputSeconds": cast(BadputJson, {kind: seconds for kind, seconds in badput.items() if seconds}),
    }


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.3f}"


def _lost(records: Sequence[AttemptJson]) -> list[int]:
    """Seconds in which each attempt trained steps that it, or a later one, trained again.

    The `lostSteps` of an attempt are first those between its start and the last step reported before it: of the
    attempt before it, and of earlier ones if it started below that one's start. The rest are its own: its pods stopped
    for a while and went on from an earlier checkpoint.
    """
    counting: list[tuple[int, int]] = []  # (index of an attempt, number of its steps that count so far), in order
    lost, trained = [0] * len(records), [0] * len(records)
    reached: int | None = None
    for index, record in enumerate(records):
        start, end, again = record.get("startStep", 0), record.get("endStep", 0), record.get("lostSteps", 0)
        is_unknown = reached is None and record["number"] > 1  # what came before has left the status
        of_earlier = again if is_unknown else min(again, max(0, (reached or 0) - start))
        _take_back(counting, lost, of_earlier)
        lost[index] = again - of_earlier
        trained[index] = max(0, end - start) + lost[index]
        counting.append((index, max(0, end - start)))
        reached = record.get("endStep", reached)
    times = [seconds_of(record).get(TRAINING, 0) for record in records]
    return [round(time * part / max(1, whole)) for time, part, whole in zip(times, lost, trained, strict=True)]


def _take_back(counting: list[tuple[int, int]], lost: list[int], number: int) -> None:
    """Count the newest so many steps as lost by those who trained them."""
    while number and counting:
        index, steps = counting.pop()
        lost[index] += min(steps, number)
        if steps > number:
            counting.append((index, steps - number))
        number = max(0, number - steps)


def _between(before: AttemptJson, after: AttemptJson) -> int:
    """Seconds between two attempts, unless the user wanted them."""
    if before["outcome"] == AttemptOutcome.SUSPENDED:
        return 0
    end, start = read_time(_text(before, "endTime")), read_time(_text(after, "startTime"))
    return max(0, round((start - end).total_seconds())) if end and start else 0


def _text(record: AttemptJson, field: str) -> str:
    value: Any = record.get(field)
    return value or ""
