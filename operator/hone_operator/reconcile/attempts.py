"""The attempts of a FineTuneJob: what each came to, and whether there is another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hone_api.failures import Retry
from hone_api.finetunejob import Restarts
from hone_operator.desired import names
from hone_operator.reconcile.failures import Cause, root_cause
from hone_operator.reconcile.outcome import backoff, parse_time
from hone_operator.reconcile.pods import ObservedJob

MAX_RECORDS = 128
STOPPED_BY_USER = frozenset({"Interrupted", "Disrupted"})


@dataclass
class Attempts:
    """status.attempts brought up to date with the Jobs that exist."""

    records: list[dict[str, Any]]
    job: ObservedJob | None = None
    """Job of the last attempt, while that attempt has not been closed."""
    cause: Cause | None = None
    """Why the last attempt ended, when it has just failed."""
    count: int = field(init=False)

    def __post_init__(self) -> None:
        self.count = self.records[-1]["number"] if self.records else 0

    @property
    def last(self) -> dict[str, Any] | None:
        return self.records[-1] if self.records else None

    @property
    def open(self) -> bool:
        """Whether the last attempt has not ended."""
        return bool(self.records) and "endTime" not in self.records[-1]

    def number(self, outcome: str) -> int:
        """Attempts that ended so."""
        return sum(1 for r in self.records if r["outcome"] == outcome)

    def to_list(self) -> list[dict[str, Any]]:
        """As status.attempts; the oldest of very many go."""
        return self.records[-MAX_RECORDS:]


def is_open(body: Mapping[str, Any], job: ObservedJob) -> bool:
    """Whether the status does not know yet how this Job's attempt ended."""
    number = job.label(names.ATTEMPT)
    for record in (body.get("status") or {}).get("attempts") or ():
        if record["number"] == number:
            return "endTime" not in record
    return True


def observe_attempts(
    body: Mapping[str, Any], jobs: Sequence[ObservedJob], suspended: bool, step: int | None
) -> Attempts:
    """The attempts so far. A closed record stays as it is; the last open one is read from its Job.

    `step` is the last reported one.
    """
    records = [dict(r) for r in (body.get("status") or {}).get("attempts") or ()]
    by_number = {j.label(names.ATTEMPT): j for j in jobs}
    known = {r["number"] for r in records}
    for number, job in sorted(by_number.items()):
        if number not in known:
            start = job.body["metadata"]["creationTimestamp"]
            records.append({"number": number, "jobName": job.name, "startTime": start, "outcome": "Running"})
    attempts = Attempts(records)
    if not attempts.open or attempts.count not in by_number:
        return attempts
    attempts.job = by_number[attempts.count]
    record = records[-1]
    if attempts.job.failed or (attempts.job.succeeded and attempts.job.result() is None):
        attempts.cause = _cause(attempts.job)
        _close(record, attempts.job, _outcome(attempts.cause, suspended or record["outcome"] == "Suspended"))
        record["reason"] = attempts.cause.code
    elif attempts.job.succeeded:
        _close(record, attempts.job, "Succeeded")
    else:
        record["outcome"] = "Suspended" if suspended else "Running"
    if step is not None and "endTime" in record:
        record["endStep"] = step
    return attempts


def _cause(job: ObservedJob) -> Cause:
    if job.succeeded:
        return Cause("ResultMissing", f"Job {job.name} succeeded, but no pod left a result.")
    return root_cause(job)


def _close(record: dict[str, Any], job: ObservedJob, outcome: str) -> None:
    record["outcome"] = outcome
    record["endTime"] = job.ended_at


def _outcome(cause: Cause, suspended: bool) -> str:
    if suspended and cause.code in STOPPED_BY_USER:
        return "Suspended"
    return "Preempted" if cause.retry is Retry.DISRUPTION else "Failed"


def final_cause(attempts: Attempts, budget: Restarts) -> Cause | None:
    """The cause that ends the run, or None when another attempt follows the last closed one."""
    cause = attempts.cause
    if cause is None:
        return None
    if cause.retry is Retry.NEVER:
        return cause
    failed, preempted = attempts.number("Failed"), attempts.number("Preempted")
    if failed > budget.max_restarts:
        return _exhausted(cause, f"{budget.max_restarts} restarts", budget.max_restarts)
    if preempted > budget.max_preemptions:
        return _exhausted(cause, f"{budget.max_preemptions} preemptions", budget.max_preemptions)
    return None


def _exhausted(cause: Cause, what: str, allowed: int) -> Cause:
    if allowed == 0:
        return cause
    return Cause(
        "RestartsExhausted",
        f"All {what} are used up; the last attempt ended with {cause.code}: {cause.message}",
        cause.to_json()["hint"],
        cause.rank,
        cause.pod,
        cause.exit_code,
        cause.log_tail,
    )


def next_start(attempts: Attempts) -> datetime | None:
    """When the next attempt may start; None: at once. Only failures of the run wait."""
    last = attempts.last
    if last is None or last["outcome"] != "Failed":
        return None
    return parse_time(last["endTime"]) + timedelta(seconds=backoff(attempts.number("Failed")))
