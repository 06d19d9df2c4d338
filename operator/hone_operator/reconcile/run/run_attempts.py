"""The attempts of a FineTuneJob: how each ended, and whether there is another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hone_api.base.meta import MAX_COUNT
from hone_api.contract.report import TrainingResult
from hone_api.contract.status_json import AttemptJson, EarlierAttemptsJson, FineTuneJobStatusJson
from hone_api.estimate.gpu_time import STOPPED, gpus_of
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.words.failures import ExitCode, FailureCode, Retry
from hone_api.words.states import AttemptOutcome
from hone_operator.desired.core import names
from hone_operator.progress.numbers import Latest, last_step
from hone_operator.reconcile.core import idle, phases, queueing
from hone_operator.reconcile.core.failures import Cause, root_cause
from hone_operator.reconcile.core.node_faults import MAX_AVOIDED
from hone_operator.reconcile.core.outcome import backoff
from hone_operator.reconcile.core.pod_state import PodState
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.run import adjustments, elastic
from hone_operator.times import parse_time, read_time

MAX_RECORDS = 128
KEPT_JOBS = 3
"""Number of ended attempts of a run that keep their Jobs, with pods and logs."""
STOPPED_BY_USER = frozenset({FailureCode.INTERRUPTED, FailureCode.DISRUPTED})
STOPPED_BY_QUEUE = STOPPED_BY_USER | {FailureCode.RANK_FAILED}
"""Causes that the stop of all pods explains, also of one that needed longer than its grace period."""


@dataclass
class Attempts:
    """status.attempts, updated from the Jobs that exist."""

    records: list[AttemptJson]
    job: ObservedJob | None = None
    """Job of the last attempt, while its record is open."""
    cause: Cause | None = None
    """Why the last attempt ended, if it failed just now."""
    earlier: EarlierAttemptsJson | None = None
    """status.earlierAttempts: those before the records."""
    begin: datetime | None = None
    """status.startTime, of the first attempt."""

    @property
    def count(self) -> int:
        """Number of the last attempt; 0 before the first."""
        return self.records[-1]["number"] if self.records else 0

    @property
    def last(self) -> AttemptJson | None:
        return self.records[-1] if self.records else None

    @property
    def open(self) -> bool:
        """Whether the last attempt has not ended."""
        return bool(self.records) and "endTime" not in self.records[-1]

    @property
    def failures(self) -> int:
        """Number of failed attempts that count as restarts: not those after which the next one was adjusted."""
        return _failures(self.records) + (self.earlier["failed"] if self.earlier else 0)

    @property
    def preemptions(self) -> int:
        """Number of attempts that the cluster ended."""
        return _preemptions(self.records) + (self.earlier["preempted"] if self.earlier else 0)

    @property
    def failure_interval(self) -> int | None:
        """Seconds between ends of attempts without notice; None before the first. One that saved at its end lost
        nothing. A day without failures is assumed in addition, so that a single failure means little."""
        lost = [r for r in self.records if _ended_without_notice(r)]
        times = [(read_time(r.get("startTime", "")), read_time(r.get("endTime", ""))) for r in self.records]
        spent = sum(max(0.0, (end - start).total_seconds()) for start, end in times if start and end)
        return round((86400 + spent) / (1 + len(lost))) if lost else None

    def queued_after(self, begin: datetime, now: datetime) -> int:
        """Seconds that all attempts waited in a queue after the start of the run."""
        earlier = self.earlier.get("queuedSeconds", 0) if self.earlier else 0
        return earlier + sum(idle.queued_after(begin, record, now) for record in self.records)

    def to_status(self) -> FineTuneJobStatusJson:
        """The fields of the status: of very many attempts, the oldest are only counted."""
        dropped, before = self.records[:-MAX_RECORDS], self.earlier
        earlier: EarlierAttemptsJson | None = before
        if dropped:
            earlier = {
                "number": len(dropped) + (before["number"] if before else 0),
                "failed": _failures(dropped) + (before["failed"] if before else 0),
                "preempted": _preemptions(dropped) + (before["preempted"] if before else 0),
            }
            queued = sum(_queued(self.begin, record) for record in dropped)
            if queued := queued + (before.get("queuedSeconds", 0) if before else 0):
                earlier["queuedSeconds"] = min(queued, MAX_COUNT)
        return {"attempts": self.records[-MAX_RECORDS:] or None, "earlierAttempts": earlier}


def _queued(begin: datetime | None, record: AttemptJson) -> int:
    """Seconds that an attempt that has ended waited in a queue after the start of the run."""
    end = read_time(record.get("endTime"))
    return idle.queued_after(begin, record, end) if begin and end else 0


def _failures(records: Sequence[AttemptJson]) -> int:
    return _number(records, AttemptOutcome.FAILED) - sum(map(adjustments.is_cause, records))


def _preemptions(records: Sequence[AttemptJson]) -> int:
    return _number(records, AttemptOutcome.PREEMPTED)


def _number(records: Sequence[AttemptJson], outcome: AttemptOutcome) -> int:
    return sum(1 for record in records if record["outcome"] == outcome)


def _ended_without_notice(record: AttemptJson) -> bool:
    by_itself = record["outcome"] == AttemptOutcome.FAILED and not adjustments.is_cause(record)
    return by_itself or record.get("reason") == FailureCode.DISRUPTED


def is_open(body: Mapping[str, Any], job: ObservedJob) -> bool:
    """Whether the status does not yet say how this Job's attempt ended."""
    number = job.label(names.ATTEMPT)
    for record in (body.get("status") or {}).get("attempts") or ():
        if record["number"] == number:
            return "endTime" not in record
    return True


def surplus(body: Mapping[str, Any], jobs: Sequence[ObservedJob]) -> list[ObservedJob]:
    """Jobs of ended attempts that may be deleted: newer ones have also ended, and the status has their records.

    Args:
        jobs: the run's attempts.
    """
    ended = sorted((j for j in jobs if j.finished), key=lambda j: j.label(names.ATTEMPT))
    return [job for job in ended[:-KEPT_JOBS] if not is_open(body, job)]


@dataclass(frozen=True)
class Now:
    """Inputs for closing a record, in addition to its Job."""

    suspended: bool
    time: datetime
    report: Latest | None = None
    """The newest report, of any attempt."""
    job_deleted_at: str | None = None
    """When the last open attempt was seen without its Job and without pods that may run."""
    stranded: Sequence[str] = ()
    """Names of its pods that can never start."""
    faulty_before: frozenset[str] = frozenset()
    """Nodes that had a fault at the end of an earlier attempt."""


def _recorded(body: Mapping[str, Any], jobs: Sequence[ObservedJob]) -> list[AttemptJson]:
    """The records of status.attempts by number, without those at the end that somebody else wrote: they have no Job,
    and the attempt before them has not ended or has not the number before theirs."""
    records: list[AttemptJson] = sorted((body.get("status") or {}).get("attempts") or (), key=lambda r: r["number"])
    numbers = {job.label(names.ATTEMPT) for job in jobs}
    while len(records) > 1 and records[-1]["number"] not in numbers:
        last, before = records[-1], records[-2]
        if "endTime" in before and last["number"] == before["number"] + 1:
            break
        records.pop()
    return records


def last_open(body: Mapping[str, Any], jobs: Sequence[ObservedJob]) -> Mapping[str, Any] | None:
    """The last attempt's record if it is open and its Job is missing, because somebody deleted it."""
    records = _recorded(body, jobs)
    if not records or "endTime" in records[-1]:
        return None
    # A later Job, whose record was never written, shows that this attempt ended.
    return None if any(j.label(names.ATTEMPT) >= records[-1]["number"] for j in jobs) else records[-1]


def observe_attempts(body: Mapping[str, Any], jobs: Sequence[ObservedJob], now: Now) -> Attempts:
    """The attempts so far. A closed record stays unchanged (except for `_settle`); the last open one follows its
    Job."""
    born = body["metadata"].get("creationTimestamp", "")
    records = [_with_required_fields(record, born) for record in _recorded(body, jobs)]
    by_number = {j.label(names.ATTEMPT): j for j in jobs}
    numbers = {r["number"] for r in records}
    for number, child in sorted(by_number.items()):
        if number not in numbers:
            start = child.body["metadata"]["creationTimestamp"]
            records.append(
                {"number": number, "jobName": child.name, "startTime": start, "outcome": AttemptOutcome.RUNNING}
            )
    status = body.get("status") or {}
    attempts = Attempts(records, earlier=status.get("earlierAttempts"), begin=read_time(status.get("startTime")))
    for index, record in enumerate(records):
        following = records[index + 1] if index + 1 < len(records) else None
        if "endTime" not in record:
            job = by_number.get(record["number"])
            reached = last_step(records[:index])
            adjustments.record_limits(record, records[:index])
            if job:
                elastic.record_nodes(record, job.nodes, body)
                idle.follow(record, job, now.time, suspended=now.suspended)
            gpus = gpus_of(body, record)
            _take_steps(record, reached, now.report)
            last_word = phases.record_phases(record, job, now.report, gpus)
            outcome = record["outcome"]
            known = frozenset(node for before in records[:index] for node in before.get("faultyNodes") or ())
            cause = _bring_up_to_date(record, job, reached, following, replace(now, faulty_before=known))
            if "endTime" in record:
                waited = bool(job and job.states and not job.states[0].ran)
                idle.close(record, outcome)
                ran = not last_word and outcome not in STOPPED
                phases.close(record, now.report, gpus, killed=ran, waited=waited)
            if following is None:
                attempts.job, attempts.cause = job, cause
                _settle(records, job)
    return attempts


def _with_required_fields(record: AttemptJson, born: str) -> AttemptJson:
    """A copy that also has the fields that every attempt of ours has."""
    whole: AttemptJson = {**record}
    whole.setdefault("outcome", AttemptOutcome.RUNNING)
    whole.setdefault("startTime", born)
    return whole


def _bring_up_to_date(
    record: AttemptJson,
    job: ObservedJob | None,
    reached: int,
    following: AttemptJson | None,
    now: Now,
) -> Cause | None:
    """Close an open record if its attempt has ended; returns the cause if it failed."""
    if job is None:
        ended_at = following["startTime"] if following else now.job_deleted_at
        if record["outcome"] == AttemptOutcome.RESIZED and not now.suspended:
            if ended_at:
                record |= {"reason": FailureCode.UNSCHEDULABLE, "endTime": ended_at}
        elif following is not None:  # it ended unnoticed: its Job is gone, and there is a later one
            record |= {
                "outcome": AttemptOutcome.FAILED,
                "reason": FailureCode.RANK_FAILED,
                "endTime": following["startTime"],
            }
        elif now.job_deleted_at:
            cause = Cause(
                FailureCode.DISRUPTED,
                " ".join([f"Job {record['jobName']} was deleted.", *map(_stranded, now.stranded)]),
            )
            return _close(record, now.job_deleted_at, cause, now)
        return None
    if not job.finished:
        record["outcome"] = _present(record, job, now)
        return None
    result = training_result(job)
    if result is None:
        return _close(record, job.ended_at, _cause(job), now)
    _close(record, job.ended_at, None, now)
    _started(record, reached, result.start_step)
    # The result is at the exported step, to which early stopping goes back; the last report may be missing.
    record["endStep"] = max(record.get("endStep", 0), result.steps)
    return None


def _present(record: AttemptJson, job: ObservedJob, now: Now) -> AttemptOutcome:
    """Outcome of an attempt that has not ended."""
    if now.suspended:
        return AttemptOutcome.SUSPENDED
    if record["outcome"] == AttemptOutcome.RESIZED:  # its Job is about to be deleted
        return AttemptOutcome.RESIZED
    if queueing.is_evicted(job):
        return AttemptOutcome.REQUEUED
    # Kueue may admit the Job again, or the user take a suspension back, while the pods are still saving a checkpoint.
    before = AttemptOutcome(record["outcome"])
    return before if before in STOPPED and any(map(_stops, job.states)) else AttemptOutcome.RUNNING


def _stops(pod: PodState) -> bool:
    """Whether a pod was asked to stop, and its end is still to come or fails the Job now."""
    return pod.is_stopping or pod.exit_code == ExitCode.INTERRUPTED


def _stranded(pod: str) -> str:
    return f"Its pod {pod} was left behind without its plan and can never start: delete it."


def _settle(records: Sequence[AttemptJson], job: ObservedJob | None) -> None:
    """Correct the records if the last attempt trained nothing and reported an earlier attempt's result.

    The earlier one finished the run, and its Job was deleted before the operator saw how it ended.
    """
    result = training_result(job) if job else None
    finisher = [r for r in records[:-1] if result and r["number"] == result.finished_attempt]
    if not (result and finisher):
        return
    finisher[0] |= {"outcome": AttemptOutcome.SUCCEEDED, "endStep": result.steps}
    finisher[0].pop("reason", None)
    records[-1] |= {"startStep": result.steps, "endStep": result.steps, "lostSteps": 0}


def training_result(job: ObservedJob) -> TrainingResult | None:
    """The result of an attempt that succeeded; None if it did not, or its result is not a model."""
    ending = job.result() if job.succeeded else None
    result = ending.result if ending else None
    return result if isinstance(result, TrainingResult) and result.artifacts else None


def _take_steps(record: AttemptJson, reached: int, report: Latest | None) -> None:
    """Record what the attempt's pods have reported: the step they resumed from, and the current step."""
    if report is None or report.attempt != record["number"]:
        return
    if report.start_step is not None:
        _started(record, reached, report.start_step)
        record["lostSteps"] = max(report.lost, record["lostSteps"])
    if report.step or report.start_step is not None:
        record["endStep"] = report.step


def _started(record: AttemptJson, reached: int, step: int) -> None:
    """Record that the attempt resumed from this step; what earlier attempts reported after it is lost.

    Args:
        reached: the last step that they reported.
    """
    record.setdefault("startStep", step)
    record.setdefault("lostSteps", max(0, reached - record["startStep"]))


def _close(record: AttemptJson, ended_at: str, cause: Cause | None, now: Now) -> Cause | None:
    """Close the record of an ended attempt; without a cause it succeeded."""
    record["endTime"] = ended_at
    if cause and cause.code == FailureCode.INTERRUPTED and cause.step is not None:  # its report may have been lost
        record["endStep"] = cause.step
    if cause:
        record["outcome"] = _outcome(cause, AttemptOutcome.SUSPENDED if now.suspended else record["outcome"])
        if cause.code == FailureCode.NODE_FAULT and now.faulty_before.issuperset(cause.faulty_nodes):
            # No other node was free, or the run crashes on every node: it spends the restart budget.
            record["outcome"] = AttemptOutcome.FAILED
        record["reason"] = cause.code
        if cause.micro_batch_size:
            record["microBatchSize"] = cause.micro_batch_size
        if cause.faulty_nodes:
            record["faultyNodes"] = list(cause.faulty_nodes[:MAX_AVOIDED])
    else:
        record["outcome"] = AttemptOutcome.SUCCEEDED
    return cause


def _cause(job: ObservedJob) -> Cause:
    if job.succeeded:
        return Cause(FailureCode.RESULT_MISSING, f"Job {job.name} succeeded, but no pod left a result.")
    return root_cause(job)


def _outcome(cause: Cause, before: str) -> AttemptOutcome:
    """
    Args:
        before: the outcome that the record had until now.
    """
    if before == AttemptOutcome.SUSPENDED and cause.code in STOPPED_BY_USER:
        return AttemptOutcome.SUSPENDED
    if before in (AttemptOutcome.REQUEUED, AttemptOutcome.RESIZED) and cause.code in STOPPED_BY_QUEUE:
        return AttemptOutcome(before)
    return AttemptOutcome.PREEMPTED if cause.retry is Retry.DISRUPTION else AttemptOutcome.FAILED


def final_cause(attempts: Attempts, spec: FineTuneJobSpec) -> Cause | None:
    """The cause that ends the run, or None if another attempt follows the last closed one."""
    cause, budget = attempts.cause, spec.restarts
    if cause is None:
        return None
    if adjustments.continues(attempts.records, budget):
        return None
    if cause.retry is Retry.NEVER and not elastic.continues(spec, attempts.records):
        return cause
    failed, preempted = attempts.failures, attempts.preemptions
    if failed > budget.max_restarts:
        return _exhausted(cause, f"{budget.max_restarts} restarts", budget.max_restarts)
    if preempted > budget.max_preemptions:
        return _exhausted(cause, f"{budget.max_preemptions} preemptions", budget.max_preemptions)
    return None


def _exhausted(cause: Cause, what: str, allowed: int) -> Cause:
    if allowed == 0:
        return cause
    return Cause(
        FailureCode.RESTARTS_EXHAUSTED,
        f"All {what} are used up; the last attempt ended with {cause.code}: {cause.message}",
        cause.to_json()["hint"],
        cause.rank,
        cause.pod,
        cause.exit_code,
        cause.log_tail,
    )


def next_start(attempts: Attempts) -> datetime | None:
    """When the next attempt may start; None: at once. Only failures of the run cause a wait."""
    last = attempts.last
    if last is None or last["outcome"] != AttemptOutcome.FAILED or adjustments.is_cause(last):
        return None
    return parse_time(last["endTime"]) + timedelta(seconds=backoff(attempts.failures))
