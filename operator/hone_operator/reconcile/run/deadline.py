"""spec.deadline and spec.budget: the run ends once its pods have saved and reported their last step. Pure.

Waits in a queue after the start of the run put the deadline off, and no run ends by it while it waits there. They cost
nothing of the budget.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from hone_api.estimate.gpu_time import LONGEST, spans_on_nodes
from hone_api.words.failures import FailureCode
from hone_api.words.states import AttemptOutcome, ConditionType, Reason
from hone_operator.desired.core.job import suspension
from hone_operator.reconcile.core import queueing
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.pod_state import PodState
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.run.run_attempts import STOPPED_BY_QUEUE
from hone_operator.reconcile.run.run_decision import RunDecision
from hone_operator.reconcile.run.run_waits import STOPPING_SECONDS
from hone_operator.times import duration_seconds, read_time

LOST = timedelta(seconds=60)
"""How long after its time a pod that was asked to stop counts as lost with its node."""
UNTOLD = timedelta(minutes=10)
"""How long after the deadline a pod that nobody has asked to stop is waited for, e.g. because Kueue does not run."""


class Limit(NamedTuple):
    """What ends a run."""

    end: datetime
    cause: Cause
    over: str
    """In words, while the pods stop."""


def limit_cause(run: RunDecision, start: str | None) -> Cause | None:
    """Whether the deadline or the budget ends the run. An attempt that stopped because of it is closed as such.

    Args:
        start: when the first attempt started; None: it has not.
    """
    attempts, builder, limit = run.attempts, run.builder, _limit(run, start)
    if limit is None or (attempts.last and attempts.last["outcome"] == AttemptOutcome.SUCCEEDED):
        return None
    end, cause, _ = limit
    if end > builder.now:
        builder.check_in(builder.until(end))
        return None
    if attempts.last and attempts.cause and attempts.cause.code in STOPPED_BY_QUEUE:
        stopped_at = read_time(attempts.last.get("endTime"))
        if stopped_at and stopped_at >= end:
            attempts.last.update({"outcome": AttemptOutcome.FAILED, "reason": cause.code})
            attempts.cause = cause
    return cause


def stop(run: RunDecision, job: ObservedJob) -> bool:
    """Let the pods of an attempt stop as for a suspension: they save a checkpoint, and report until they end.

    Returns:
        Whether to wait for them; False: none runs, or nothing can stop them but the deletion of their Job.
    """
    limit, now = _limit(run, run.builder.status.get("startTime")), run.builder.now
    if limit is None or not any(pod.runs and not _is_lost(pod, limit.end, now) for pod in job.states):
        return False
    change: dict[str, Any] | None = None
    if not job.queue:
        change = None if job.is_suspended else suspension(job.body, True)
    elif run.platform.kueue.enabled and job.workload is not None:
        change = queueing.pass_on(job, suspend=True)
    else:
        return False
    if change:
        run.builder.apply.append(change)
    return True


def wait(run: RunDecision) -> Outcome:
    """Wait for the pods that stop at the limit."""
    limit = _limit(run, run.builder.status.get("startTime"))
    message = f"{limit.over if limit else 'The time'} is over: the pods stop after a checkpoint."
    run.builder.create.clear()
    run.conditions.keep(ConditionType.ADMITTED, Reason.NOT_ADMITTED)
    run.conditions.set(ConditionType.RUNNING, True, Reason.STOPPING, message)
    run.builder.add_event_if_changed(ConditionType.RUNNING, warning=True)
    run.builder.check_in(STOPPING_SECONDS)
    return run.close(ConditionType.RUNNING)


def _limit(run: RunDecision, start: str | None) -> Limit | None:
    """Which limit ends the run first; None: there is none, or none has begun."""
    return min([*_deadline(run, start), *_budget(run)], key=lambda limit: limit.end, default=None)


def _deadline(run: RunDecision, start: str | None) -> Iterator[Limit]:
    now, begin, words = run.builder.now, read_time(start), f"spec.deadline {run.spec.deadline}"
    if not run.spec.deadline or begin is None or _waits(run):
        return
    waited = run.attempts.queued_after(begin, now)
    begin = min(begin, now)  # the clock was ahead, or the status is forged
    since_begin = (now - begin).total_seconds()
    end = begin + timedelta(seconds=duration_seconds(run.spec.deadline) + min(waited, since_begin))
    yield Limit(end, Cause(FailureCode.DEADLINE_EXCEEDED, f"The run did not end within {words}."), words)


def _budget(run: RunDecision) -> Iterator[Limit]:
    """When the GPU hours are used: known while the last attempt holds GPUs, and afterwards."""
    records, now = run.attempts.records, run.builder.now
    if run.spec.budget is None or not records:
        return
    # Pods that are asked to stop hold their GPUs until they have ended.
    records = [*records[:-1], {**records[-1], "outcome": AttemptOutcome.RUNNING}]
    status = {**run.builder.old, "attempts": records}
    spans = list(spans_on_nodes({**run.builder.body, "status": status}, read_time(records[-1].get("idleSince")) or now))
    hours = run.spec.budget.hours
    used = sum(max(0.0, (end - start).total_seconds()) * gpus for start, end, gpus in spans)
    left = hours * 3600 - used
    if not spans or not spans[-1][2] or (left > 0 and not (run.attempts.open and spans[-1][1] == now)):
        return
    _, last, gpus = spans[-1]
    words = f"The run used {used / 3600:.2f} GPU hours, and spec.budget allows {hours:g}."
    over = f"spec.budget of {hours:g} GPU hours"
    end = min(last, now) + timedelta(seconds=max(left / gpus, -LONGEST))
    yield Limit(end, Cause(FailureCode.BUDGET_EXCEEDED, words), over)


def _waits(run: RunDecision) -> bool:
    """Whether the run waits in a queue of Kueue, or in the line of its namespace."""
    job = run.attempts.job
    if run.spec.suspend:
        return False
    if job and not job.finished and queueing.waits_in_queue(job):
        return True
    return run.was_in_line and run.seen.line is not None


def _is_lost(pod: PodState, end: datetime, now: datetime) -> bool:
    """Whether waiting for its end is in vain."""
    stop_by = read_time(pod.body["metadata"].get("deletionTimestamp"))
    return (stop_by + LOST if stop_by else end + UNTOLD) < now
