"""Where the time of an attempt went: one line for each phase, from which reports, status, metrics and docs are made.

Queue and pods show `queued`, `scheduled` and `image`; the trainer measures the others with a monotonic clock and
sends their sums so far in every report and in its termination message, so that nothing depends on which reports
arrived. A new phase is a line of `PHASES` and its field in `AttemptPhases`; a trainer may send phases that an
operator of another version does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from hone_api.base.meta import MAX_COUNT, ApiModel

QUEUED, SCHEDULED, IMAGE, OTHER = "queued", "scheduled", "image", "other"
SUSPENDED = "suspended"
LOADING, ENCODING, EVALUATING_BASE = "loading", "encoding", "evaluatingBase"
FIRST_STEP, TRAINING, EVALUATING, SAVING, EXPORTING = "firstStep", "training", "evaluating", "saving", "exporting"


@dataclass(frozen=True)
class Phase:
    """A part of an attempt's time."""

    name: str
    """In status, reports and the label of metrics."""
    help: str
    """What happens in it, without a full stop."""
    words: str
    """For people, e.g. in the line of a demo."""


PHASES = (
    Phase(
        QUEUED,
        "Until its queue lets it start, also after an eviction: Kueue's, or the line of tenants.maxActiveJobs",
        "queued",
    ),
    Phase(SCHEDULED, "From then until the pod of rank 0 has a node", "waiting"),
    Phase(IMAGE, "From then until its container starts: volumes, image", "image"),
    Phase(
        LOADING,
        "What else comes before the first step: libraries, checks, model, checkpoint, other ranks, the first batch",
        "loading",
    ),
    Phase(ENCODING, "Rows to tokens, where no Job did it before", "encoding rows"),
    Phase(EVALUATING_BASE, "Evaluation of the base model, before the first step", "evaluating the base"),
    Phase(FIRST_STEP, "The first optimiser step, in which kernels are compiled and memory is reserved", "first step"),
    Phase(TRAINING, "The steps after it", "training"),
    Phase(EVALUATING, "Evaluation during and after training", "evaluating"),
    Phase(SAVING, "Checkpoints, while the ranks wait for them", "saving"),
    Phase(EXPORTING, "Writing the model, its card and its report", "exporting"),
    Phase(SUSPENDED, "Suspended by spec.suspend, once the pods have stopped", "suspended"),
    Phase(OTHER, "The rest: pods that stop, and what a pod that was killed did not report", "other"),
)
BEFORE_FIRST_STEP = (LOADING, ENCODING, EVALUATING_BASE)
"""Phases in which containers run and nothing is trained yet."""
MEASURED = frozenset(phase.name for phase in PHASES) - {QUEUED, SCHEDULED, IMAGE, SUSPENDED, OTHER}
"""Phases that the trainer measures."""
OF_STAGE = {
    "Loading": LOADING,
    "Encoding": ENCODING,
    "EvaluatingOtherVersion": EVALUATING_BASE,
    "ScoringReference": LOADING,
    "EvaluatingBase": EVALUATING_BASE,
    "BenchmarkingBase": EVALUATING_BASE,
    "Training": TRAINING,
    "Evaluating": EVALUATING,
    "Benchmarking": EVALUATING,
    "Exporting": EXPORTING,
}
"""The phase of a stage that the trainer reports. In `Training`, the first step has a phase of its own."""
STEPPING = frozenset({"Training", "Evaluating"})
"""Stages in which the optimiser step says more than the name of the stage."""


def stage_words(stage: str) -> str:
    """For people: EvaluatingBase -> Evaluating base."""
    return re.sub(r"(?<=[a-z])[A-Z]", lambda capital: f" {capital[0].lower()}", stage)


PhaseName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-zA-Z]*$", max_length=40)]
LONGEST = 10 * 365 * 86400
"""Seconds: with it, and all GPUs of a job, the status still holds what a trainer reports."""
PhaseSeconds = Annotated[
    dict[PhaseName, Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)]], Field(max_length=32)
]
"""Seconds by phase, as the trainer sends them: of this attempt so far, with what earlier pods of it measured."""
_HELP: Mapping[str, str] = {phase.name: f"{phase.help}. Seconds." for phase in PHASES}


def seconds_of(record: Mapping[str, Any]) -> dict[str, int]:
    """Seconds of an attempt by phase; in a record from before `phaseSeconds`, they are in `phases`."""
    return {**(record.get("phaseSeconds") or record.get("phases") or {})}


def badput_of(goodput: Mapping[str, Any]) -> dict[str, int]:
    """Seconds by kind of badput; in a status from before `badputSeconds`, they are in `badput`."""
    return {**(goodput.get("badputSeconds") or goodput.get("badput") or {})}


class AttemptPhases(ApiModel):
    """Seconds of an attempt by phase, as rank 0 saw them. Once the attempt has ended, they add up to its time."""

    queued: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[QUEUED])
    scheduled: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[SCHEDULED])
    image: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[IMAGE])
    loading: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[LOADING])
    encoding: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[ENCODING])
    evaluating_base: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[EVALUATING_BASE])
    first_step: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[FIRST_STEP])
    training: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[TRAINING])
    evaluating: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[EVALUATING])
    saving: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[SAVING])
    exporting: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[EXPORTING])
    suspended: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[SUSPENDED])
    other: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=_HELP[OTHER])
