"""Turns a report into the `status.progress` of its job. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hone_api.base.meta import MAX_COUNT
from hone_api.base.reading import read_known
from hone_api.base.wording import duration
from hone_api.contract.report import ProgressReport
from hone_api.kinds.finetunejob_status import JobProgress
from hone_api.words.phases import STEPPING, stage_words
from hone_api.words.progress_numbers import MEASURED, OF_STAGE, PROGRESS_NUMBERS

KUBEFLOW_NAMES = {measured.kubeflow: measured.name for measured in MEASURED if measured.kubeflow}
"""Names under which stock Hugging Face scripts log metrics that we show. Everything else in a report is dropped."""


@dataclass(frozen=True)
class Latest:
    """The newest accepted report of an attempt."""

    attempt: int
    progress: JobProgress
    received: datetime
    checkpoint_step: int | None = None
    """Step of the newest complete checkpoint."""
    eta_seconds: int | None = None
    start_step: int | None = None
    """Step that the attempt's first pods resumed from; None until our trainer has reported it."""
    lost: int = 0
    """Steps that had been reported and that this attempt trained again."""
    pod_created: datetime | None = None
    """Creation time of the pod that reported these steps; None if unknown, because the operator restarted."""
    step_reported: datetime | None = None
    """When the step was last reported: a pod that is loading reports none."""
    ours: bool = False
    """Whether our own trainer reports; then transformers' own reports, which claim 100 % at any end, are ignored."""

    tracking_run: str | None = None
    """Id of the MLflow run, as the trainer reports it."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the attempt by phase of `hone_api.words.phases`; empty before a report of this operator's time."""

    @property
    def step(self) -> int:
        return self.progress.step

    @property
    def trained(self) -> bool:
        """Whether the attempt has trained a step, so all its ranks have found each other."""
        return self.step > (self.start_step or 0)


@dataclass(frozen=True)
class Origin:
    """Who reports, and what is known about earlier attempts."""

    pod_created: datetime | None = None
    reached: int = 0
    """Last step that the previous attempt reported."""


UNKNOWN = Origin()


def number(text: str | None, digits: int = 6) -> str | None:
    """The number in at most `digits` significant digits; 'nan', 'inf' and '-inf' are kept; None for anything else."""
    try:
        return format(float(text), f".{digits}g") if text is not None else None
    except ValueError:
        return None


def remembered(status: Mapping[str, Any], attempt: int) -> Latest | None:
    """What the status of a job says about its newest attempt: all that is known after the operator restarted."""
    attempts, progress = status.get("attempts") or (), status.get("progress") or {}
    if not attempts or attempts[-1]["number"] != attempt:
        return None
    reported_at, started = progress.get("lastUpdatedTime"), attempts[-1].get("startTime")
    if not reported_at or not started or datetime.fromisoformat(reported_at) < datetime.fromisoformat(started):
        return None  # of an earlier attempt
    received = datetime.fromisoformat(reported_at)
    return Latest(
        attempt,
        read_known(JobProgress, progress)[0],
        received,
        step_reported=received,
        start_step=attempts[-1].get("startStep"),
        lost=attempts[-1].get("lostSteps", 0),
        ours="stage" in progress,
    )


def newest(status: Mapping[str, Any]) -> Latest | None:
    """What the status says about the attempt that was its newest."""
    attempts = status.get("attempts")
    return remembered(status, attempts[-1]["number"]) if attempts else None


def reached_before(status: Mapping[str, Any], attempt: int) -> int:
    """Last step that an earlier attempt reported."""
    return last_step([a for a in status.get("attempts") or () if a["number"] < attempt])


def last_step(records: Sequence[Mapping[str, Any]]) -> int:
    """Last step that attempts reported: of the newest of them that reported any. It is 0 without one."""
    return next((record["endStep"] for record in reversed(records) if "endStep" in record), 0)


def update(
    report: ProgressReport, attempt: int, previous: Latest | None, now: datetime, origin: Origin = UNKNOWN
) -> Latest | None:
    """The new state after this report; None if the report is not news.

    A report may be partial: missing numbers keep their last value. Within an attempt the step never falls, except when
    newer pods continue from a checkpoint after a suspension.
    """
    if previous and previous.attempt > attempt:
        return None
    if previous and previous.attempt < attempt:
        previous = None
    if previous and (_of_older_pod(previous, origin) or (previous.ours and report.hone is None)):
        return None
    before = previous or Latest(attempt, JobProgress(), now)
    earlier = before.progress
    step, total = _steps(report, earlier)
    start = report.hone.start_step if report.hone else None
    loading = report.hone is not None and start is None and step == 0
    if loading:
        step = earlier.step
    resumed = previous is not None and not loading and _of_newer_pod(previous, origin)
    if step < earlier.step and not resumed:
        return None
    lost = before.lost
    if start is not None and before.start_step is None:
        lost = max(0, origin.reached - start)
    elif resumed:
        lost += max(0, earlier.step - (step if start is None else start))
    hone = report.hone
    waits = previous is not None and loading
    return Latest(
        attempt=attempt,
        progress=_progress(report, earlier, step, total, now),
        received=now,
        checkpoint_step=before.checkpoint_step
        if hone is None or hone.checkpoint_step is None
        else hone.checkpoint_step,
        eta_seconds=_seconds_left(report, before.eta_seconds),
        start_step=start if before.start_step is None else before.start_step,
        lost=lost,
        pod_created=before.pod_created if waits else origin.pod_created,
        step_reported=before.step_reported if waits else now,
        ours=hone is not None,
        tracking_run=(hone.tracking_run if hone else None) or before.tracking_run,
        phases=(hone.phases if hone else {}) or before.phases,
    )


def _progress(report: ProgressReport, earlier: JobProgress, step: int, total: int | None, now: datetime) -> JobProgress:
    """The numbers of the status after this report, at this step: what it does not have is as before.

    Our own trainer reports all that it knows: what is of a stage, and is not in its report, is of an earlier stage.
    """
    percentage = report.trainer_status.progress_percentage or 0
    percent = min(100, 100 * step // total) if total else max(earlier.percent, percentage)
    eta = report.trainer_status.estimated_remaining_seconds
    stage = report.hone.stage if report.hone else earlier.stage
    of_stage = dict.fromkeys((*OF_STAGE, "eta")) if report.hone else {}
    return earlier.model_copy(
        update={
            **of_stage,
            **_numbers(report),
            **({} if eta is None else {"eta": duration(eta)}),
            "metrics": {**(earlier.metrics or {}), **_metrics(report)} or None,
            "step": step,
            "total_steps": total,
            "percent": percent,
            "summary": _summary(step, total, percent, report),
            "stage": stage,
            "last_updated_time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )


def _seconds_left(report: ProgressReport, before: int | None) -> int | None:
    left = report.trainer_status.estimated_remaining_seconds
    return before if left is None and report.hone is None else left


def _summary(step: int, total: int | None, percent: int, report: ProgressReport) -> str:
    """For people: 412/1000 41%; before the first step the stage, e.g. "Evaluating base 7/24 rows"."""
    steps = f"{step}/{total} {percent}%" if total else f"{percent}%"
    if (hone := report.hone) is None:
        return steps
    words = stage_words(hone.stage)
    rows = f" {hone.rows}/{hone.total_rows} rows" if hone.rows is not None and hone.total_rows else ""
    if step == 0 and hone.stage not in STEPPING:
        return f"{words}{rows}"
    return f"{steps}, {words.lower()}{rows}" if rows else steps


def _of_older_pod(previous: Latest, origin: Origin) -> bool:
    return bool(previous.pod_created and origin.pod_created and origin.pod_created < previous.pod_created)


def _of_newer_pod(previous: Latest, origin: Origin) -> bool:
    """After a restart of the operator only the time of the last step is known: the pod that reported it is older."""
    before = previous.pod_created or previous.step_reported
    return bool(before and origin.pod_created and origin.pod_created > before)


def _steps(report: ProgressReport, earlier: JobProgress) -> tuple[int, int | None]:
    """(step, total). A resumed stock script first reports 0 % without a step, and its last report also has no step."""
    if report.hone:
        return report.hone.step, report.hone.total_steps or earlier.total_steps
    metrics = {m.name: m.value for m in report.trainer_status.metrics}
    total = _count(metrics.get("total_steps")) or earlier.total_steps
    step = _count(metrics.get("current_step"))
    if step is None:
        done = report.trainer_status.progress_percentage == 100
        step = total if done and total else earlier.step
    return step, total


def _count(text: str | None) -> int | None:
    if not (text and text.isascii() and text.isdigit()):
        return None
    count = int(text)
    return count if count <= MAX_COUNT else None


def _metrics(report: ProgressReport) -> dict[str, str]:
    """The method's own metrics; those of stock scripts are dropped."""
    metrics = report.hone.metrics if report.hone else {}
    return {name: text for name, value in metrics.items() if (text := number(value)) is not None}


def _numbers(report: ProgressReport) -> dict[str, str | int]:
    """The numbers that the report has; `_steps` takes the steps."""
    measured = {KUBEFLOW_NAMES[m.name]: m.value for m in report.trainer_status.metrics if m.name in KUBEFLOW_NAMES}
    counts: dict[str, int] = {}
    for entry in PROGRESS_NUMBERS:
        value = getattr(report.hone, entry.name, None)
        if value is not None and not entry.count:
            measured[entry.name] = value
        elif value is not None and entry.in_status:
            counts[entry.name] = value
    return {name: text for name, value in measured.items() if (text := number(value)) is not None} | counts
