"""FineTuneJob: from what exists to what should exist. Read `reconcile` top to bottom."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from hone_api.failures import FailureCode
from hone_api.finetunejob import FineTuneJobSpec
from hone_api.states import GATES, AnyReason, AttemptOutcome, ConditionType, Reason
from hone_api.status_json import JobProgressJson
from hone_operator.desired import model as desired_model
from hone_operator.desired import names
from hone_operator.desired.job import suspension
from hone_operator.desired.platform import Platform
from hone_operator.desired.queue import queue_of
from hone_operator.desired.training import image, network, training
from hone_operator.progress.numbers import newest
from hone_operator.reconcile import bounds, earlier, forecast, inputs, phases, queueing
from hone_operator.reconcile import progress as reports
from hone_operator.reconcile.acceptance import RefusedSpec, begun, refuse, tell_refused, why_refused
from hone_operator.reconcile.conditions import is_true
from hone_operator.reconcile.failures import Cause
from hone_operator.reconcile.finish import record
from hone_operator.reconcile.gates import GateKeeper, Gates
from hone_operator.reconcile.goodput import goodput
from hone_operator.reconcile.line import MAX_ACTIVE, Line
from hone_operator.reconcile.observed import Observed, of_component
from hone_operator.reconcile.outcome import Outcome
from hone_operator.reconcile.outcome_builder import JobDraft, as_json
from hone_operator.reconcile.pods import ObservedJob, waiting
from hone_operator.reconcile.refusals import final_refusal, storage_note
from hone_operator.reconcile.run_attempts import (
    Now,
    final_cause,
    is_halved,
    next_start,
    observe_attempts,
    surplus,
    trained,
)
from hone_operator.reconcile.terminal import after_end, fail, phase
from hone_operator.reconcile.validation import accept, read_spec, spec_problems
from hone_operator.times import duration_seconds, format_time, parse_time

RECHECK_SECONDS = 15.0
NETWORK_SECONDS = 300.0
"""Seconds between checks of the Service and NetworkPolicy of training ranks; before the first step they may be
waiting."""
STOPPING_SECONDS = 2.0
AS_PLANNED = frozenset(
    {
        Reason.FETCHING,
        Reason.ENCODING,
        Reason.WAITING_FOR_DATASET,
        Reason.WAITING_FOR_JOB,
        Reason.WAITING_FOR_MODEL_VERSION,
        Reason.SUSPENDED,
    }
)
"""Reasons for waiting that need no action."""


def reconcile(job: Mapping[str, Any], seen: Observed, now: datetime, platform: Platform) -> Outcome:
    """The next step of this FineTuneJob. Pure: the same input gives the same outcome."""
    if job["metadata"].get("deletionTimestamp"):
        return Outcome()
    if is_true(job, ConditionType.FINISHED):
        return after_end(job, seen.jobs, seen.made, now)
    draft = JobDraft(job, now)
    if seen.made and not _leaves_result(of_component(seen.jobs, "training")):
        return earlier.restore(draft, seen.made, [j.body for j in seen.jobs if not j.finished])
    try:
        spec, unknown = read_spec(FineTuneJobSpec, job)
        names.split_uri(spec.model.uri or "")
    except ValidationError as error:
        return refuse(draft, seen, RefusedSpec(FailureCode.INVALID_VALUE, spec_problems(error)))
    except names.InvalidReferenceError as error:
        return refuse(draft, seen, RefusedSpec(FailureCode.INVALID_VALUE, f"spec.model.uri: {error}"))
    refused = why_refused(spec, seen, draft, platform)
    if refused and not begun(draft, seen):
        return refuse(draft, seen, refused)
    notes = storage_note(spec.resources.nodes, platform), queueing.note(spec.scheduling, platform)
    accept(draft, unknown, " ".join(filter(None, notes)))
    if refused:
        tell_refused(draft, refused)
    return _Run(draft, spec, seen, platform).decide()


def _leaves_result(training: Sequence[ObservedJob]) -> bool:
    """Whether the last attempt's Job shows how the run ended: it has more details than the ModelVersion."""
    last = max(training, key=lambda j: j.label(names.ATTEMPT), default=None)
    return last is not None and trained(last) is not None


class _Run:
    """One decision about an accepted job; each method sets the conditions of one stage."""

    def __init__(self, draft: JobDraft, spec: FineTuneJobSpec, seen: Observed, platform: Platform):
        self.draft, self.spec, self.seen, self.platform = draft, spec, seen, platform
        self.conditions = draft.conditions
        self._warnings: list[str] = []
        """Problems that the attempt's curves show."""
        jobs = self._jobs = of_component(seen.jobs, "training")
        deleted = draft.time if seen.stopping == 0 else None
        now = Now(spec.suspend, seen.report or newest(draft.old), deleted, seen.stranded, phases.gpus_of(draft.body))
        self.attempts = observe_attempts(draft.body, jobs, now)
        self.gate_keeper = GateKeeper(draft, spec, seen, platform, begun=bool(self.attempts.records))

    def decide(self) -> Outcome:
        draft, attempts = self.draft, self.attempts
        # The run has not ended, whoever wrote these.
        draft.put(modelVersionName=None, completionTime=None, failure=None)
        if self.seen.model_missing and not attempts.records:
            draft.offer.append(desired_model.model(draft.body))
        if self._was_in_line():
            draft.put(queue=None)
        gates = self.gate_keeper.check()
        if gates.rows.look:
            return Outcome(look=gates.rows.look)
        self._suspension()
        self._merge_progress()
        draft.put(
            attempts=attempts.to_list() or None,
            goodput=goodput(attempts.records),
            startTime=self._start_time(),
        )
        misfit = self.gate_keeper.look_ahead(gates)
        forecast.told_more(draft, self._warnings)
        draft.delete += [*self.seen.network_left, *(j.body for j in surplus(draft.body, self._jobs))]
        cause = gates.failure or misfit or final_cause(attempts, self.spec.restarts)
        if not (attempts.job and not attempts.job.finished):
            cause = cause or final_refusal(self.seen.refusals)
        if cause := cause or self._over_deadline():
            self.conditions.keep(ConditionType.ADMITTED, Reason.NOT_ADMITTED)
            self._not_running(cause.code)
            return fail(draft, cause, self._unfinished())
        if attempts.last and attempts.last["outcome"] == AttemptOutcome.SUCCEEDED:
            return self._finish(gates)
        if attempts.job and not attempts.job.finished:
            return self._watch(attempts.job)
        if attempts.open:
            return self._stopping()
        if (gate := gates.closed) is not None:
            return self._wait(gate)
        return self._start(gates)

    # -- attempts --------------------------------------------------------------------------------

    def _wait(self, gate: ConditionType) -> Outcome:
        self.conditions.set(ConditionType.ADMITTED, None, Reason.WAITING, "")
        self._not_running(Reason.WAITING)
        for refusal in self.seen.refusals:  # of a Job that stages what this gate waits for
            self.conditions.set(gate, False, refusal.reason, f"{refusal.kind} {refusal.name}: {refusal.message}")
            self.draft.check_in(RECHECK_SECONDS)
        return self._not_done(gate)

    def _start(self, gates: Gates) -> Outcome:
        """Start the next attempt if it is due."""
        draft, attempts = self.draft, self.attempts
        resolved = self.gate_keeper.resolved(gates).model_copy(update={"image": image(self.spec, self.platform)})
        number, start = attempts.count + 1, next_start(attempts)
        if self.spec.suspend:
            return self._paused()
        if not self.conditions.is_true(ConditionType.ACCEPTED):
            self.conditions.set(ConditionType.ADMITTED, None, Reason.NOT_ACCEPTED, "")
            self._not_running(Reason.NOT_ACCEPTED)
            self._tell_end_of_attempt()
            return self._not_done(ConditionType.ACCEPTED)
        self.conditions.set(ConditionType.ADMITTED, None, Reason.PENDING, self._asked())
        if asked := list(bounds.placement(draft.body["spec"].get("scheduling") or {}, self.platform.bounds)):
            self.conditions.set(ConditionType.ADMITTED, False, bounds.CODE, "; ".join(asked))
            self._not_running(bounds.CODE)
            return self._not_done(ConditionType.RUNNING)
        if start and start > draft.now:
            reason = attempts.last.get("reason") if attempts.last else None
            used = f"{attempts.failures} of {self.spec.restarts.max_restarts} restarts used"
            failed = f"Attempt {number - 1} failed with {reason}"
            message = f"{failed}; attempt {number} starts at {format_time(start)} ({used})."
            self._not_running(Reason.BACK_OFF, message)
            draft.check_in(draft.until(start))
            self._tell_end_of_attempt()
            return self._not_done(ConditionType.RUNNING)
        if self.seen.line and not self.seen.line.is_open:
            return self._in_line(self.seen.line)
        limit = attempts.micro_batch_limit
        attempt = replace(
            self.gate_keeper.attempt(number, resolved, gates),
            micro_batch_limit=limit,
            failure_interval=attempts.failure_interval,
        )
        draft.create += training(attempt, self.platform)
        draft.put(resolved=as_json(resolved))
        self._tell_end_of_attempt()
        self._not_running(Reason.STARTING, f"Attempt {number} is starting.")
        if self.seen.refusals:
            self._refused()
            return self._not_done(ConditionType.RUNNING)
        attempts.records.append(
            {
                "number": number,
                "jobName": attempt.name,
                "startTime": self._waits_since() or draft.time,
                "outcome": AttemptOutcome.RUNNING,
            }
        )
        if limit:
            attempts.records[-1]["microBatchLimit"] = limit
        waits = queue_of(self.spec.scheduling, self.platform)
        draft.put(attempts=attempts.to_list(), startTime=draft.old.get("startTime") or (None if waits else draft.time))
        return self._not_done(ConditionType.RUNNING)

    def _stopping(self) -> Outcome:
        """Wait for the last attempt's pods: two sets of pods must not write the same checkpoints."""
        job_name = self.attempts.last.get("jobName") if self.attempts.last else None
        self.conditions.keep(ConditionType.ADMITTED, Reason.PENDING)
        self._not_running(Reason.STOPPING, f"Job {job_name} was deleted; its pods are stopping.")
        self.draft.check_in(STOPPING_SECONDS)
        return self._not_done(ConditionType.RUNNING)

    def _asked(self) -> str:
        nodes = self.spec.resources.nodes
        return "1 pod was requested." if nodes == 1 else f"{nodes} pods were requested."

    def _refused(self) -> None:
        for refusal in self.seen.refusals:
            message = f"{refusal.kind} {refusal.name}: {refusal.message}"
            self.conditions.set(ConditionType.ADMITTED, False, refusal.reason, message)
            self.draft.tell_change(ConditionType.ADMITTED, warning=True)
            self.draft.check_in(RECHECK_SECONDS)

    def _tell_end_of_attempt(self) -> None:
        cause, last = self.attempts.cause, self.attempts.last
        if cause and last and last["outcome"] != AttemptOutcome.SUSPENDED:  # the user wanted that
            reason = (
                Reason.PREEMPTED
                if cause.code in (FailureCode.DISRUPTED, FailureCode.INTERRUPTED)
                else Reason.RESTARTING
            )
            self.draft.tell(reason, f"{cause.code}: {cause.message}{self._smaller()}", warning=True)

    def _smaller(self) -> str:
        """What the next attempt does about memory that ran out, for the end of a message."""
        if not is_halved(self.attempts, self.spec.restarts):
            return ""
        return (
            f". The next attempt has at most {self.attempts.micro_batch_limit} rows in a forward pass, and the same "
            "batch: set training.microBatchSize to begin with that"
        )

    def _watch(self, job: ObservedJob) -> Outcome:
        """Follow an attempt whose Job has not ended."""
        if job.queue:
            self._follow_queue(job)
        elif job.is_suspended and not self.spec.suspend and self.seen.line and not self.seen.line.is_open:
            return self._in_line(self.seen.line)
        elif job.is_suspended != self.spec.suspend:
            self.draft.apply.append(suspension(job.body, self.spec.suspend))
        pinned = self.gate_keeper.pinned
        self.draft.put(resolved=as_json(pinned) if pinned else self.draft.old.get("resolved"))
        self.draft.await_start(job)
        if self.seen.network_lost:
            self.draft.create += network(self.draft.body, self.attempts.count, self.platform)
        if self.spec.resources.nodes > 1:
            report = self.seen.report
            trains = report and report.attempt == self.attempts.count and report.trained
            self.draft.check_in(NETWORK_SECONDS if trains else RECHECK_SECONDS)
        if self.spec.suspend:
            return self._paused()
        if job.queue and job.is_suspended:
            return self._queued(job)
        nodes, obstacle = self.spec.resources.nodes, waiting(job)
        if obstacle and not obstacle.scheduled:
            self.conditions.set(ConditionType.ADMITTED, False, obstacle.reason, obstacle.message)
            self.draft.tell_change(ConditionType.ADMITTED, warning=True)
            self.draft.check_in(RECHECK_SECONDS)
        elif job.scheduled >= nodes:
            self.conditions.set(ConditionType.ADMITTED, True, Reason.SCHEDULED, "")
        else:
            self.conditions.set(ConditionType.ADMITTED, None, Reason.PENDING, self._asked())
        if obstacle and obstacle.code == FailureCode.IMAGE_PULL_FAILED and self._image_corrected():
            return self._with_new_image(job, obstacle.message)
        if obstacle and obstacle.code and obstacle.since:
            limit = obstacle.since + timedelta(seconds=self.platform.start_timeout_seconds)
            if limit <= self.draft.now:
                self._not_running(obstacle.reason, obstacle.message)
                return fail(self.draft, Cause(obstacle.code, obstacle.message), self._unfinished())
            self._not_running(
                obstacle.reason, self.conditions.kept(ConditionType.RUNNING, obstacle.reason, obstacle.message)
            )
            self.draft.tell_change(ConditionType.RUNNING, warning=True)
            self.draft.check_in(self.draft.until(limit))
        elif job.running >= nodes:
            self.conditions.set(
                ConditionType.RUNNING, True, Reason.RUNNING, f"Attempt {self.attempts.count} is running."
            )
            if not self.conditions.was_true(ConditionType.RUNNING):
                self.draft.tell(Reason.STARTED, f"Attempt {self.attempts.count} is running.")
        else:
            self._not_running(Reason.STARTING, f"Attempt {self.attempts.count} is starting.")
        return self._not_done(ConditionType.RUNNING)

    def _follow_queue(self, job: ObservedJob) -> None:
        """Show the place in the queue, and pass the user's suspension on to Kueue."""
        self.draft.put(queue=queueing.place(job, self.platform.queues).status)
        if self.platform.queues and (change := queueing.pass_on(job, self.spec.suspend)):
            self.draft.apply.append(change)

    def _queued(self, job: ObservedJob) -> Outcome:
        """Wait for Kueue: for the first time, or because it took the quota back."""
        place = queueing.place(job, self.platform.queues)
        self.conditions.set(ConditionType.ADMITTED, False, place.reason, place.message)
        self.draft.tell_change(ConditionType.ADMITTED, warning=place.reason == Reason.DEACTIVATED)
        self._not_running(place.reason)
        return self._not_done(ConditionType.RUNNING)

    def _in_line(self, line: Line) -> Outcome:
        """Wait until fewer jobs of the namespace train."""
        self.draft.put(
            queue={
                "reason": MAX_ACTIVE,
                "position": line.position,
                "message": line.message,
                "since": self._waits_since() or self.draft.time,
            }
        )
        self.conditions.set(ConditionType.ADMITTED, False, Reason.QUEUED, line.message)
        self._not_running(Reason.QUEUED)
        self._tell_end_of_attempt()
        self.draft.check_in(line.look_again_in)
        return self._not_done(ConditionType.RUNNING)

    def _was_in_line(self) -> bool:
        queue = self.draft.old.get("queue")
        return queue is not None and queue.get("reason") == MAX_ACTIVE

    def _waits_since(self) -> str | None:
        """When the job began to wait for other jobs of the namespace; None: it does not wait."""
        queue = self.draft.old.get("queue")
        return queue.get("since") if queue and self._was_in_line() else None

    def _image_corrected(self) -> bool:
        """Whether the platform's image has changed since the attempt began, e.g. by `helm rollback`."""
        pinned = self.gate_keeper.pinned
        return (pinned and pinned.image) not in (None, image(self.spec, self.platform))

    def _with_new_image(self, job: ObservedJob, message: str) -> Outcome:
        """Replace the attempt; none of its pods can have trained."""
        self.draft.delete.append(job.body)
        self.draft.tell(Reason.IMAGE_CHANGED, f"{message} The next attempt uses the image that the platform has now.")
        self._not_running(Reason.IMAGE_CHANGED, message)
        return self._not_done(ConditionType.RUNNING)

    # -- what goes along with every stage --------------------------------------------------------

    def _suspension(self) -> None:
        """Set condition Suspended from the user's spec."""
        if self.spec.suspend:
            self.conditions.set(ConditionType.SUSPENDED, True, Reason.SUSPENDED_BY_USER, "spec.suspend is true.")
        else:
            self.conditions.set(ConditionType.SUSPENDED, False, Reason.NOT_SUSPENDED, "")
        if self.conditions.changed(ConditionType.SUSPENDED):
            if self.spec.suspend:
                self.draft.tell(Reason.SUSPENDED, "The pods stop after a checkpoint.")
            elif self.conditions.was_true(ConditionType.SUSPENDED):
                self.draft.tell(Reason.RESUMED, "The run continues from its last checkpoint.")

    def _paused(self) -> Outcome:
        self.conditions.set(ConditionType.ADMITTED, False, Reason.SUSPENDED, "")
        self._not_running(Reason.SUSPENDED)
        self._tell_end_of_attempt()
        return self._not_done(ConditionType.SUSPENDED)

    def _merge_progress(self) -> None:
        report = self.seen.report
        if report is None or report.attempt != self.attempts.count:
            return
        merged: JobProgressJson = as_json(report.progress)
        curves = reports.extend_curves(self.draft.old.get("metrics") or (), merged)
        self.draft.put(progress=merged, metrics=curves or None)
        self._warnings = reports.warnings(curves)

    def _start_time(self) -> str | None:
        """When the first attempt started: created its pods, if it had to wait in a queue for that."""
        if started := self.draft.old.get("startTime"):
            return started
        records, job = self.attempts.records, self.attempts.job
        if job and job.queue and not job.finished:
            return None if job.is_suspended else self.draft.time
        return records[0]["startTime"] if records else None

    def _over_deadline(self) -> Cause | None:
        """Whether time alone ends the run. Sets no condition, only the next check."""
        start = self._start_time()
        if not self.spec.deadline or not start:
            return None
        if self.attempts.last and self.attempts.last["outcome"] == AttemptOutcome.SUCCEEDED:
            return None
        end = parse_time(start) + timedelta(seconds=duration_seconds(self.spec.deadline))
        if end > self.draft.now:
            self.draft.check_in(self.draft.until(end))
            return None
        return Cause(FailureCode.DEADLINE_EXCEEDED, f"The run did not end within spec.deadline {self.spec.deadline}.")

    def _unfinished(self) -> list[Mapping[str, Any]]:
        return [j.body for j in self.seen.jobs if not j.finished]

    def _not_running(self, reason: AnyReason, message: str = "") -> None:
        self.conditions.set(ConditionType.RUNNING, False, reason, message)

    def _not_done(self, gate: ConditionType) -> Outcome:
        """Close a decision without an end; `gate` is the condition that is waited for."""
        c = self.conditions
        for type_ in (ConditionType.SUCCEEDED, ConditionType.FAILED, ConditionType.FINISHED):
            c.set(type_, False, Reason.NOT_FINISHED, "")
        cause = (
            c.get(ConditionType.ADMITTED)
            if gate == ConditionType.RUNNING and c.get(ConditionType.ADMITTED)["status"] == "False"
            else c.get(gate)
        )
        if gate in GATES and cause["reason"] not in AS_PLANNED:
            self.draft.tell_change(gate, warning=cause["reason"] not in inputs.HEALTHY)
        self.draft.ready(False, cause["reason"], cause["message"], reconciling=gate != ConditionType.SUSPENDED)
        upcoming = self.attempts.count + (1 if self.attempts.records and not self.attempts.open else 0)
        shown = phase(c, upcoming)
        self.draft.put(phase=shown, reason=cause["reason"] if cause["reason"] != shown else None)
        return self.draft.outcome()

    def _finish(self, gates: Gates) -> Outcome:
        """Record the last attempt's success. Called again after a crash until the status has it."""
        result = trained(self.attempts.job) if self.attempts.job else None
        if result is None:
            raise AssertionError("a closed attempt has succeeded only if it has a result")
        attempt = self.gate_keeper.attempt(self.attempts.count, self.gate_keeper.resolved(gates), gates)
        self._not_running(Reason.SUCCEEDED)
        self.conditions.set(ConditionType.ADMITTED, True, Reason.SCHEDULED, "")
        return record(self.draft, attempt, result, self.seen.ledger, self.seen.versions, self.platform)
