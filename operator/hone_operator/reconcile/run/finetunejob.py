"""FineTuneJob: from what exists to what should exist. Read `reconcile` top to bottom."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from hone_api.contract.status_json import AttemptJson, JobProgressJson
from hone_api.estimate.gpu_time import has_begun
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.resolved import Resolved
from hone_api.words.failures import FailureCode
from hone_api.words.states import AttemptOutcome, ConditionType, Reason
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.queue import queue_of
from hone_operator.desired.model import model as desired_model
from hone_operator.desired.run.attempt import image, world_size
from hone_operator.desired.run.tracking import tracked_run
from hone_operator.desired.run.training import training
from hone_operator.reconcile.core import bounds, idle, queueing
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.core.node_faults import nodes_to_avoid
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.outcome_builder import JobBuilder, as_json
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.refusals import final_refusal, storage_note
from hone_operator.reconcile.core.validation import accept, read_spec, spec_problems
from hone_operator.reconcile.gates import forecast
from hone_operator.reconcile.gates.gates import Gates
from hone_operator.reconcile.run import adjustments, deadline, earlier, elastic, run_waits
from hone_operator.reconcile.run import progress as reports
from hone_operator.reconcile.run.acceptance import RefusedSpec, begun, refuse, report_refused, why_refused
from hone_operator.reconcile.run.finish import record
from hone_operator.reconcile.run.goodput import goodput
from hone_operator.reconcile.run.run_attempts import final_cause, next_start, surplus, training_result
from hone_operator.reconcile.run.run_decision import RECHECK_SECONDS, RunDecision
from hone_operator.reconcile.run.running import watch
from hone_operator.reconcile.run.terminal import after_end, fail
from hone_operator.reconcile.staging.observed import Observed, of_component


def reconcile(job: Mapping[str, Any], seen: Observed, now: datetime, platform: Platform) -> Outcome:
    """The next step of this FineTuneJob. Pure: the same input gives the same outcome."""
    if job["metadata"].get("deletionTimestamp"):
        return Outcome()
    if is_true(job, ConditionType.FINISHED):
        return after_end(job, seen.jobs, seen.made, now)
    builder = JobBuilder(job, now)
    if not begun(builder, seen):
        builder.put(progress=None)  # of rows that were being encoded; where they still are, it is set again
    if seen.made and not _leaves_result(of_component(seen.jobs, "training")):
        return earlier.restore(builder, seen.made, [j.body for j in seen.jobs if not j.finished])
    try:
        spec, unknown = read_spec(FineTuneJobSpec, job)
        names.split_uri(spec.model.uri or "")
    except ValidationError as error:
        return refuse(builder, seen, RefusedSpec(FailureCode.INVALID_VALUE, spec_problems(error)))
    except names.InvalidReferenceError as error:
        return refuse(builder, seen, RefusedSpec(FailureCode.INVALID_VALUE, f"spec.model.uri: {error}"))
    refused = why_refused(spec, seen, builder, platform)
    if refused and not begun(builder, seen):
        return refuse(builder, seen, refused)
    notes = storage_note(spec.resources.nodes, platform), queueing.disabled_note(spec.scheduling, platform)
    accept(builder, unknown, " ".join(filter(None, notes)))
    if refused:
        report_refused(builder, refused)
    return _decide(RunDecision(builder, spec, seen, platform))


def _leaves_result(training: Sequence[ObservedJob]) -> bool:
    """Whether the last attempt's Job shows how the run ended: it has more details than the ModelVersion."""
    last = max(training, key=lambda j: j.label(names.ATTEMPT), default=None)
    return last is not None and training_result(last) is not None


def _decide(run: RunDecision) -> Outcome:
    builder, attempts = run.builder, run.attempts
    # The run has not ended, whoever wrote these.
    builder.put(modelVersionName=None, completionTime=None, failure=None)
    if run.was_in_line:
        builder.put(queue=None)
    gates = run.gate_keeper.check()
    if gates.rows.look:
        return Outcome(look=gates.rows.look)
    _set_suspended(run)
    warnings = _merge_progress(run)
    builder.check_in(idle.look_again_in(attempts.last, attempts.job, builder.now))
    late = deadline.limit_cause(run, _start_time(run))
    builder.put(**attempts.to_status())
    builder.put(goodput=goodput(attempts.records), startTime=_start_time(run))
    misfit = run.gate_keeper.look_ahead(gates)
    forecast.add_advice(builder, warnings)
    builder.delete += [*run.seen.network_left, *(j.body for j in surplus(builder.body, run.jobs))]
    cause = gates.failure or misfit or final_cause(attempts, run.spec)
    active = attempts.job if attempts.job and not attempts.job.finished else None
    if active is None:
        cause = cause or final_refusal(run.seen.refusals)
    if late and not cause and active and deadline.stop(run, active):
        return deadline.wait(run)
    if cause := cause or late:
        run.conditions.keep(ConditionType.ADMITTED, Reason.NOT_ADMITTED)
        run.set_not_running(cause.code)
        return fail(builder, cause, run.unfinished())
    if attempts.last and attempts.last["outcome"] == AttemptOutcome.SUCCEEDED:
        return _finish(run, gates)
    if active:
        return watch(run, active)
    if attempts.open:
        return run_waits.wait_for_stopping_pods(run)
    if (gate := gates.closed) is not None:
        return run_waits.wait_for_gate(run, gate)
    return _start(run, gates)


# -- attempts ------------------------------------------------------------------------------------


def _start(run: RunDecision, gates: Gates) -> Outcome:
    """Start the next attempt if nothing speaks against it and it is due."""
    own = {"image": image(run.spec, run.platform), "world_size": world_size(run.spec, run.nodes)}
    resolved = run.gate_keeper.resolved(gates).model_copy(update=own)
    if run.spec.suspend:
        return run_waits.pause(run)
    if not run.conditions.is_true(ConditionType.ACCEPTED):
        return run_waits.wait_for_acceptance(run)
    run.conditions.set(ConditionType.ADMITTED, None, Reason.PENDING, run.requested_pods)
    if run.seen.differs and not run.attempts.records:
        return run_waits.wait_for_decision(run, run.seen.differs)
    if problems := list(bounds.placement(run.builder.body["spec"].get("scheduling") or {}, run.platform.tenants)):
        return run_waits.wait_for_placement(run, problems)
    start = next_start(run.attempts)
    if start and start > run.builder.now:
        return run_waits.back_off(run, start)
    if run.seen.line and not run.seen.line.is_open:
        return run_waits.wait_in_line(run, run.seen.line)
    return _create_pods(run, gates, resolved)


def _create_pods(run: RunDecision, gates: Gates, resolved: Resolved) -> Outcome:
    builder, attempts = run.builder, run.attempts
    number, adjusted = attempts.count + 1, adjustments.after(attempts.records, run.spec.restarts)
    attempt = replace(
        run.gate_keeper.attempt(number, resolved, gates),
        micro_batch_limit=adjusted.micro_batch_limit,
        learning_rate_halvings=adjusted.learning_rate_halvings,
        avoided_nodes=nodes_to_avoid([record.get("faultyNodes") or () for record in run.attempts.records]),
        failure_interval=attempts.failure_interval,
        pods=run.nodes,
    )
    builder.create += training(attempt, run.platform)
    builder.put(resolved=as_json(resolved))
    run.announce_end_of_attempt()
    run.set_not_running(Reason.STARTING, f"Attempt {number} is starting.")
    if run.seen.refusals:
        _refuse_pods(run)
        return run.close(ConditionType.RUNNING)
    entry: AttemptJson = {
        "number": number,
        "jobName": attempt.name,
        "startTime": run.waits_since or builder.time,
        "outcome": AttemptOutcome.RUNNING,
    }
    adjustments.record_limits(entry, attempts.records)
    elastic.record_nodes(entry, attempt.nodes, builder.body)
    if words := elastic.more(run.spec, attempts.records, attempt.nodes):
        builder.add_event(Reason.RESIZED, words)
    attempts.records.append(entry)
    builder.put(**attempts.to_status())
    if queue := queue_of(run.spec.scheduling, run.platform):
        place = queueing.at_the_end(attempt.name, queue)
        builder.put(startTime=builder.old.get("startTime"), queue=place.status)
        return run_waits.wait_for_kueue(run, place)
    builder.put(startTime=builder.old.get("startTime") or builder.time)
    return run.close(ConditionType.RUNNING)


def _refuse_pods(run: RunDecision) -> None:
    """Show why the API server created nothing of an attempt."""
    for refusal in run.seen.refusals:
        message = f"{refusal.kind} {refusal.name}: {refusal.message}"
        run.conditions.set(ConditionType.ADMITTED, False, refusal.reason, message)
        run.builder.add_event_if_changed(ConditionType.ADMITTED, warning=True)
        run.builder.check_in(RECHECK_SECONDS)


def _finish(run: RunDecision, gates: Gates) -> Outcome:
    """Record the last attempt's success. Called again after a crash until the status has it.

    Its version needs a Model. Until now it is not made: whoever applies the job and its Model together would find that
    the name is taken.
    """
    if run.seen.model_missing:
        run.builder.offer.append(desired_model.model(run.builder.body))
    result = training_result(run.attempts.job) if run.attempts.job else None
    if result is None:
        raise AssertionError("a closed attempt has succeeded only if it has a result")
    attempt = replace(
        run.gate_keeper.attempt(run.attempts.count, run.gate_keeper.resolved(gates), gates),
        pods=elastic.nodes_of(run.attempts.records, result.finished_attempt or run.attempts.count),
    )
    run.set_not_running(Reason.SUCCEEDED)
    run.conditions.set(ConditionType.ADMITTED, True, Reason.SCHEDULED, "")
    return record(run.builder, attempt, result, run.seen.ledger, run.seen.versions, run.seen.last_version, run.platform)


# -- what goes along with every stage ------------------------------------------------------------


def _set_suspended(run: RunDecision) -> None:
    """Set condition Suspended from the user's spec."""
    if run.spec.suspend:
        run.conditions.set(ConditionType.SUSPENDED, True, Reason.SUSPENDED_BY_USER, "spec.suspend is true.")
    else:
        run.conditions.set(ConditionType.SUSPENDED, False, Reason.NOT_SUSPENDED, "")
    if run.conditions.changed(ConditionType.SUSPENDED):
        if run.spec.suspend:
            run.builder.add_event(Reason.SUSPENDED, "The pods stop after a checkpoint.")
        elif run.conditions.was_true(ConditionType.SUSPENDED):
            run.builder.add_event(Reason.RESUMED, "The run continues from its last checkpoint.")


def _merge_progress(run: RunDecision) -> list[str]:
    """Copy the attempt's last report into the status; returns problems that its curves show."""
    job, report = run.attempts.job, run.seen.report
    if report and report.attempt != run.attempts.count:
        report = None
    progress: JobProgressJson = as_json(report.progress) if report else run.builder.old.get("progress") or {}
    if not (job and any(pod.runs for pod in job.states)):
        progress = reports.without_stage(progress)
    if run.attempts.records:
        run.builder.put(progress=progress or None)
    if report is None:
        return []
    curves = reports.extend_curves(run.builder.old.get("metrics") or (), progress)
    run.builder.put(metrics=curves or None)
    if span := reports.seconds_range(report):
        run.builder.put(estimatedSecondsRange=span)
    if tracked := tracked_run(run.spec, report.tracking_run, run.platform):
        run.builder.put(tracking=as_json(tracked))
    return reports.warnings(curves)


def _start_time(run: RunDecision) -> str | None:
    """When the first attempt started: created its pods, if it had to wait in a queue for that."""
    if started := run.builder.old.get("startTime"):
        return started
    records, job = run.attempts.records, run.attempts.job
    if job and job.queue and not job.finished:
        return None if queueing.keeps_waiting(job) else run.builder.time
    if job is None and run.builder.old.get("queue") and not any(map(has_begun, records)):
        return None  # every Job so far was deleted while it waited in its queue
    return records[0]["startTime"] if records else None
