"""The end of a run: success, failure, and the removal of objects afterwards."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from hone_api.base.reading import read_known
from hone_api.blocks.placement import Cleanup
from hone_api.estimate.gpu_time import STOPPED, gpus_of
from hone_api.words.failures import FAILURES, FailureCode
from hone_api.words.states import GATES, AnyReason, AttemptOutcome, ConditionType, JobPhase, Reason
from hone_operator.desired.core import names
from hone_operator.progress.numbers import newest
from hone_operator.reconcile.core import idle, phases
from hone_operator.reconcile.core.conditions import MAX_MESSAGE, Conditions, is_true
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.outcome_builder import JobBuilder
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.run.run_attempts import surplus
from hone_operator.reconcile.staging.observed import of_component
from hone_operator.times import duration_seconds, parse_time

FAILURE = "failure.json"
IN_QUEUE: dict[str, JobPhase] = {
    Reason.QUEUED: JobPhase.QUEUED,
    Reason.QUEUE_NOT_FOUND: JobPhase.QUEUED,
    Reason.DEACTIVATED: JobPhase.QUEUED,
    Reason.REQUEUED: JobPhase.REQUEUED,
}
"""Phases by the reason of condition Admitted."""


def succeed(builder: JobBuilder, reason: AnyReason, message: str, ended_at: str) -> Outcome:
    """End a run whose ModelVersion is recorded."""
    builder.conditions.set(ConditionType.SUCCEEDED, True, reason, message)
    builder.conditions.set(ConditionType.FAILED, False, Reason.SUCCEEDED, "")
    builder.conditions.set(ConditionType.FINISHED, True, Reason.SUCCEEDED, "")
    builder.ready(True, Reason.SUCCEEDED, message)
    builder.put(completionTime=ended_at or builder.time, phase=JobPhase.SUCCEEDED, reason=None, failure=None)
    builder.add_event(Reason.SUCCEEDED, message)
    builder.check_again_in = None
    return builder.outcome()


def fail(builder: JobBuilder, cause: Cause, active: Iterable[Mapping[str, Any]] = ()) -> Outcome:
    """End a run for good: the status says why, and the Jobs that still run are deleted."""
    builder.create.clear()
    attempts = builder.status.get("attempts") or []
    last = attempts[-1] if attempts else None
    if last and "endTime" not in last:
        ran = last["outcome"] not in STOPPED
        last["endTime"] = builder.time
        idle.close(last, last["outcome"])
        phases.close(last, newest(builder.status), gpus_of(builder.body, last), killed=ran, waited=True)
        last |= {"outcome": AttemptOutcome.FAILED, "reason": cause.code}
    if last:
        builder.create.append(record(builder.body, cause))
    _failed(builder, cause, builder.time)
    return builder.outcome(delete=active)


def record(job: Mapping[str, Any], cause: Cause) -> dict[str, Any]:
    """The ConfigMap that remembers the end of a failed run if its status and Jobs are lost.

    For a successful run, its ModelVersion is the record. Without a time, the object is always the same.
    """
    meta = job["metadata"]
    failure = {"code": cause.code, "message": cause.message[:MAX_MESSAGE]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.metadata(names.ended(meta["name"], meta["uid"]), job, names.labels("training", job)),
        "immutable": True,
        "data": {FAILURE: json.dumps(failure)},
    }


def read_cause(body: Mapping[str, Any]) -> Cause | None:
    """The cause in such a ConfigMap; None if it cannot be parsed, or does not fit a status."""
    try:
        failure = json.loads(body["data"][FAILURE])
        code, message = failure["code"], failure["message"]
        json.dumps([code, message], ensure_ascii=False).encode()  # half of a surrogate pair has no UTF-8 form
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if not (isinstance(code, str) and isinstance(message, str) and len(message) <= MAX_MESSAGE):
        return None
    return Cause(FailureCode(code), message) if code in FAILURES else None


def reject(builder: JobBuilder, cause: Cause, ended_at: str) -> Outcome:
    """End a run whose model is recorded but failed its gate: the run has failed."""
    _failed(builder, cause, ended_at or builder.time)
    return builder.outcome()


def _failed(builder: JobBuilder, cause: Cause, ended_at: str) -> None:
    builder.conditions.set(ConditionType.SUCCEEDED, False, Reason.FAILED, "")
    builder.conditions.set(ConditionType.FAILED, True, cause.code, cause.message)
    builder.conditions.set(ConditionType.FINISHED, True, Reason.FAILED, "")
    builder.ready(False, cause.code, cause.message, stalled=True)
    builder.put(completionTime=ended_at, phase=JobPhase.FAILED, reason=cause.code, failure=cause.to_json())
    builder.add_event(Reason.FAILED, f"{cause.code}: {cause.message}", warning=True)
    builder.check_again_in = None


def after_end(
    job: Mapping[str, Any], children: Sequence[ObservedJob], version: Mapping[str, Any] | None, now: datetime
) -> Outcome:
    """The result is final. Jobs that still run are stopped; all Jobs are deleted after cleanup.podsAfter.

    Args:
        version: the ModelVersion of this run, if it exists.
    """
    builder = JobBuilder(job, now)
    builder.conditions.keep_all()
    succeeded = is_true(job, ConditionType.SUCCEEDED)
    builder.put(phase=(JobPhase.SUCCEEDED if succeeded else JobPhase.FAILED))
    failure = builder.old.get("failure")
    builder.put(reason=failure.get("code") if failure and not succeeded else None)
    builder.put(modelVersionName=version["metadata"]["name"] if version else _deleted_version(job))
    old = surplus(job, of_component(children, "training"))
    gone = [c.body for c in children if not c.finished or c in old]
    after = read_known(Cleanup, job["spec"].get("cleanup") or {})[0].pods_after
    if after and (ended_at := builder.old.get("completionTime")):
        end = parse_time(ended_at) + timedelta(seconds=duration_seconds(after))
        if end <= now:
            gone = [c.body for c in children]
        elif children:
            builder.check_in(builder.until(end))
    return builder.outcome(delete=gone)


def _deleted_version(job: Mapping[str, Any]) -> str | None:
    """The deleted ModelVersion that the status names; None if this run cannot have made it."""
    status = job.get("status") or {}
    rejected = (status.get("failure") or {}).get("code") == FailureCode.RETENTION_GATE_FAILED
    named = str(status.get("modelVersionName") or "")
    model, _, number = named.rpartition("-v")
    possible = model == (job["spec"].get("output") or {}).get("modelName") and number.isdigit()
    return named if possible and (rejected or is_true(job, ConditionType.SUCCEEDED)) else None


def phase(conditions: Conditions, attempts: int) -> JobPhase:
    """The phase, for people; derived from everything else."""
    if conditions.is_true(ConditionType.SUSPENDED):
        return JobPhase.SUSPENDED
    if conditions.is_true(ConditionType.RUNNING):
        return JobPhase.RUNNING
    admitted = conditions.get(ConditionType.ADMITTED) if conditions.has(ConditionType.ADMITTED) else {}
    if in_queue := IN_QUEUE.get(admitted.get("reason", "")):
        return in_queue
    if attempts > 1:
        return JobPhase.RESTARTING
    if attempts == 1:
        return JobPhase.STARTING
    for gate in filter(conditions.has, GATES):
        c = conditions.get(gate)
        if c["status"] != "True":
            return JobPhase.PENDING if c["reason"].endswith("NotFound") else JobPhase.PREPARING
    return JobPhase.STARTING
