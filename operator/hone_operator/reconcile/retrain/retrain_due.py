"""Whether a job of a Model is due now, and why not. Pure: what it sees is a `RetrainState`, and nothing is changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from hone_api.base.meta import MAX_COUNT
from hone_api.base.wording import counted
from hone_api.blocks.retrain import Retrain
from hone_api.contract.status_json import (
    RetrainBaseStatusJson,
    RetrainDatasetJson,
    RetrainStatusJson,
)
from hone_api.words.states import AnyReason, ConditionType, Reason
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.dataset.refresh import next_look
from hone_operator.reconcile.retrain import retrain_base
from hone_operator.reconcile.retrain.retrain_budget import next_month
from hone_operator.times import duration_seconds, format_time, read_time

Body = Mapping[str, Any]


QUIET_PERIODS = 10
"""How many of them a job that is due waits at most, if spec.retrain.maxWait is not set."""
LEAST_HOURS = 0.01
"""GPU hours of a budget with which no job begins."""
_LIMITS = (Reason.WAITING_FOR_QUIET, Reason.WAITING_FOR_INTERVAL, Reason.BUDGET_USED_UP)


class Delay(NamedTuple):
    """Why no job is created now."""

    reason: AnyReason
    message: str
    seconds: float | None = None
    """Until time alone may change it."""


@dataclass(frozen=True)
class RetrainState:
    """What a decision follows from."""

    job_name: str
    """Of a job on the present rows and base."""
    entries: Sequence[RetrainDatasetJson]
    base: RetrainBaseStatusJson | None
    rows: int
    """Present rows of the Datasets."""
    jobs: Sequence[Body]
    own: Sequence[Body]
    """Those that the operator created for this Model."""
    current: Body | None
    """The job on the present rows and base."""
    last_job: str | None
    last_start: str | None
    requested: datetime | None
    """When somebody asked for a job; None: nobody has since the last one."""
    gpu_seconds: float
    """In this month."""
    hours_left: float | None = None
    """GPU hours that the budget of the repeated job leaves; None: it has none."""
    due_since: str | None = None
    """Since when a job waits for nothing but the limits."""
    succeeded: bool | None = None
    """Whether a job on the rows and base that count as trained made a model; None: nobody knows."""
    failed: str | None = None
    """A job on the present rows and base that failed."""

    def after(self, wait: Delay | None, time: str) -> "RetrainState":
        """The same after this was decided."""
        return replace(self, due_since=(self.due_since or time) if wait and wait.reason in _LIMITS else None)

    @property
    def changed(self) -> int:
        """Number of rows that no job of this model was trained on."""
        return sum(entry["changedRows"] for entry in self.entries)

    @property
    def is_new(self) -> bool:
        """Whether a job would train on other rows than the last one, or from another base."""
        rows = any(entry["digest"] != entry["trained"] for entry in self.entries)
        return rows or retrain_base.is_new(self.base)

    def begun(self, time: str) -> "RetrainState":
        """The same after the job was created."""
        marks = replace(self, entries=mark_trained(self.entries), base=mark_started(self.base), succeeded=False)
        return replace(marks, last_job=self.job_name, last_start=time, requested=None, due_since=None)

    def to_json(self) -> RetrainStatusJson:
        """status.retrain."""
        status: RetrainStatusJson = {
            "datasets": list(self.entries),
            "gpuSeconds": min(int(self.gpu_seconds), MAX_COUNT),
        }
        if self.base:
            status["base"] = self.base
        if self.requested:
            status["requestedAt"] = format_time(self.requested)
        if self.due_since:
            status["dueSince"] = self.due_since
        if self.last_job:
            status["lastJob"] = self.last_job
        if self.last_start:
            status["lastStart"] = self.last_start
        if self.succeeded is not None:
            status["succeeded"] = self.succeeded
        return status


def why_not_now(model: Body, retrain: Retrain, state: RetrainState, now: datetime) -> Delay | None:
    """Why no job is created now; None: create it."""
    if running := next((job for job in state.jobs if not is_true(job, ConditionType.FINISHED)), None):
        return Delay(Reason.RETRAINING, f"FineTuneJob {_name(running)} of this model is not finished.")
    if not state.is_new and (done := _trained(state) if state.succeeded is not False else _failed(model, state, now)):
        return done
    if retrain.suspend:
        return Delay(Reason.SUSPENDED, "spec.retrain.suspend is true.")
    wait = _not_due(model, retrain, state, now) if state.is_new else None
    return wait or _too_soon(retrain, state, now) or _over_budget(retrain, state, now)


def _trained(state: RetrainState) -> Delay:
    words = "A job trained on the present rows."
    if state.requested:
        words += f" The request of {format_time(state.requested)} waits for new rows."
    return Delay(Reason.TRAINED, words)


def _failed(model: Body, state: RetrainState, now: datetime) -> Delay | None:
    """Why no job is created on rows on which none succeeded; None: somebody asked for one, and its name is free."""
    again = f"hone retrain {_name(model)}"
    if state.current:
        words = f"FineTuneJob {_name(state.current)} on the present rows failed: see its status. New rows are next."
        return Delay(Reason.RETRAIN_FAILED, f"{words} To repeat it on these rows, delete it, then run: {again}")
    if state.requested and state.requested <= now:
        return None
    if state.failed:
        words = f"FineTuneJob {state.failed} on the present rows failed: see its status."
    else:
        job = f"FineTuneJob {state.last_job}" if state.last_job else "The job"
        words = f"{job} on the present rows was deleted before it succeeded."
    words += f" New rows are next. To train on these rows again: {again}"
    return Delay(Reason.RETRAIN_FAILED, words, (state.requested - now).total_seconds() if state.requested else None)


def _not_due(model: Body, retrain: Retrain, state: RetrainState, now: datetime) -> Delay | None:
    changed = state.changed
    wanted = _rows_wanted(retrain, state.rows)
    if (wanted is not None and changed >= wanted) or retrain_base.is_new(state.base):
        return None
    words = f"{counted(changed, 'row')} changed since the last job"
    if wanted is not None:
        words += f", and spec.retrain.rows asks for {wanted:,}"
    due = _next_time(model, retrain, state, now)
    if due is None:
        return Delay(Reason.WAITING_FOR_ROWS, f"{words}. To train now: hone retrain {_name(model)}")
    if due <= now:
        return None
    return Delay(Reason.WAITING_FOR_ROWS, f"{words}; the next time is {format_time(due)}.", (due - now).total_seconds())


def _next_time(model: Body, retrain: Retrain, state: RetrainState, now: datetime) -> datetime | None:
    """From when on any changed row is enough: by spec.retrain.times or a request."""
    times = [state.requested] if state.requested else []
    if retrain.times:
        since = read_time(state.last_start) or read_time(model["metadata"].get("creationTimestamp")) or now
        times.append(next_look(retrain.times, since))
    return min(times, default=None)


def _rows_wanted(retrain: Retrain, present: int) -> int | None:
    if retrain.rows is None:
        return None
    if retrain.rows.at_least is not None:
        return retrain.rows.at_least
    share = float((retrain.rows.share or "0%").removesuffix("%")) / 100
    return max(1, round(share * present))


def _too_soon(retrain: Retrain, state: RetrainState, now: datetime) -> Delay | None:
    changed = [entry["changedAt"] for entry in state.entries if entry.get("changedAt")]
    quiet = _after(max(changed, default=None), retrain.quiet_period)
    latest = (read_time(state.due_since) or now) + timedelta(seconds=_longest_wait(retrain))
    if quiet and now < min(quiet, latest):
        words = f"Rows changed at {max(changed)}: a job starts at {format_time(quiet)} if they stay as they are"
        words += f", and at {format_time(latest)} in any case."
        return Delay(Reason.WAITING_FOR_QUIET, words, (min(quiet, latest) - now).total_seconds())
    interval = _after(state.last_start, retrain.min_interval)
    if interval and interval > now:
        words = f"The last job started at {state.last_start}: the next one starts at {format_time(interval)}."
        return Delay(Reason.WAITING_FOR_INTERVAL, words, (interval - now).total_seconds())
    return None


def _longest_wait(retrain: Retrain) -> float:
    if retrain.max_wait is not None:
        return duration_seconds(retrain.max_wait)
    return QUIET_PERIODS * duration_seconds(retrain.quiet_period)


def _over_budget(retrain: Retrain, state: RetrainState, now: datetime) -> Delay | None:
    if state.hours_left is not None and state.hours_left < LEAST_HOURS:
        words = (
            f"The GPU hours of spec.budget of FineTuneJob {retrain.fine_tune_job} are used: name a job with another."
        )
        return Delay(Reason.BUDGET_USED_UP, words)
    if retrain.gpu_hours_per_month is None or state.gpu_seconds < retrain.gpu_hours_per_month * 3600:
        return None
    following = next_month(now)
    hours = f"{state.gpu_seconds / 3600:,.1f} of {retrain.gpu_hours_per_month:,} GPU hours of this month are used"
    words = f"{hours}: the next job is due {format_time(following)}."
    return Delay(Reason.BUDGET_USED_UP, words, (following - now).total_seconds())


def _after(time: str | None, duration: str) -> datetime | None:
    start = read_time(time)
    return start + timedelta(seconds=duration_seconds(duration)) if start else None


def describe_news(state: RetrainState) -> str:
    """What is new since the last job."""
    if not state.is_new:
        return "no job on the present rows succeeded and somebody asked for it again"
    base = retrain_base.is_new(state.base)
    rows = [f"{counted(state.changed, 'row')} changed"] if state.changed or not base else []
    return " and ".join([*rows, *([f"its base is now {retrain_base.present_base(state.base)}"] if base else [])])


def pending(requested: datetime | None, last_start: datetime | None) -> datetime | None:
    """The request, unless a job was created since."""
    return None if requested and last_start and last_start >= requested else requested


def mark_trained(entries: Sequence[RetrainDatasetJson]) -> list[RetrainDatasetJson]:
    """The entries after a job was created on the present rows."""
    return [{**entry, "trained": entry["digest"], "changedRows": 0} for entry in entries]


def mark_started(base: RetrainBaseStatusJson | None) -> RetrainBaseStatusJson | None:
    """The base after a job was created that starts from it."""
    return {**base, "trained": base["present"]} if base and "present" in base else base


def _name(body: Body) -> str:
    return str(body["metadata"]["name"])
