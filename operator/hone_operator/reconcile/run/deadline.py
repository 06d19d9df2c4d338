"""spec.deadline: the run ends once its pods have saved and reported their last step. Pure.

Waits in a queue after the start of the run put the deadline off, and no run ends by it while it waits there.
"""

from datetime import datetime, timedelta
from typing import Any

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


def reached(run: RunDecision, start: str | None) -> Cause | None:
    """Whether time alone ends the run. An attempt that stopped because of it is closed as such.

    Args:
        start: when the first attempt started; None: it has not.
    """
    attempts, builder, end = run.attempts, run.builder, _end(run, start)
    if end is None or _waits(run) or (attempts.last and attempts.last["outcome"] == AttemptOutcome.SUCCEEDED):
        return None
    if end > builder.now:
        builder.check_in(builder.until(end))
        return None
    cause = Cause(FailureCode.DEADLINE_EXCEEDED, f"The run did not end within spec.deadline {run.spec.deadline}.")
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
    end, now = _end(run, run.builder.status.get("startTime")), run.builder.now
    if end is None or not any(pod.runs and not _is_lost(pod, end, now) for pod in job.states):
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
    """Wait for the pods that stop at the deadline."""
    message = f"spec.deadline {run.spec.deadline} is over: the pods stop after a checkpoint."
    run.builder.create.clear()
    run.conditions.keep(ConditionType.ADMITTED, Reason.NOT_ADMITTED)
    run.conditions.set(ConditionType.RUNNING, True, Reason.STOPPING, message)
    run.builder.add_event_if_changed(ConditionType.RUNNING, warning=True)
    run.builder.check_in(STOPPING_SECONDS)
    return run.close(ConditionType.RUNNING)


def _end(run: RunDecision, start: str | None) -> datetime | None:
    """When the deadline is over; None: there is none, or it has not begun."""
    now, begin = run.builder.now, read_time(start)
    if not run.spec.deadline or begin is None:
        return None
    waited = run.attempts.queued_after(begin, now)
    begin = min(begin, now)  # the clock was ahead, or the status is forged
    since_begin = (now - begin).total_seconds()
    return begin + timedelta(seconds=duration_seconds(run.spec.deadline) + min(waited, since_begin))


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
