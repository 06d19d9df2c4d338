"""Decisions about an accepted FineTuneJob that end in waiting: for what, and when to look again."""

from datetime import datetime

from hone_api.contract.status_json import AttemptJson
from hone_api.words.failures import FailureCode
from hone_api.words.states import GATES, ConditionType, Reason
from hone_operator.reconcile.core import bounds, queueing
from hone_operator.reconcile.core.line import MAX_ACTIVE, Line
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.queueing import QueuePlace
from hone_operator.reconcile.run.run_decision import RECHECK_SECONDS, RunDecision
from hone_operator.times import format_time

STOPPING_SECONDS = 2.0


def wait_for_gate(run: RunDecision, gate: ConditionType) -> Outcome:
    """Wait for what a run needs before its first attempt: base model, rows, tokens."""
    run.conditions.set(ConditionType.ADMITTED, None, Reason.WAITING, "")
    run.set_not_running(Reason.WAITING)
    for refusal in run.seen.refusals:  # of a Job that stages what this gate waits for
        run.conditions.set(gate, False, refusal.reason, f"{refusal.kind} {refusal.name}: {refusal.message}")
        run.builder.check_in(RECHECK_SECONDS)
    closed = {type_: reason for type_ in GATES if (reason := _closed_by(run, type_))}
    return run.close(next((type_ for type_, reason in closed.items() if _needs_a_person(reason)), gate))


def _closed_by(run: RunDecision, gate: ConditionType) -> str:
    """The reason of a gate that is closed; empty: it is open, or there is no such gate."""
    try:
        shown = run.conditions.get(gate)
    except KeyError:
        return ""
    return str(shown["reason"]) if shown["status"] == "False" else ""


def _needs_a_person(reason: str) -> bool:
    """Whether a reason is of something that failed or is not there: it hides behind nothing that only takes time."""
    return reason in set(FailureCode) or reason.endswith("NotFound")


def wait_for_acceptance(run: RunDecision) -> Outcome:
    """Start no further attempt of a spec that is refused now."""
    run.conditions.set(ConditionType.ADMITTED, None, Reason.NOT_ACCEPTED, "")
    run.set_not_running(Reason.NOT_ACCEPTED)
    run.announce_end_of_attempt()
    return run.close(ConditionType.ACCEPTED)


def wait_for_decision(run: RunDecision, message: str) -> Outcome:
    """Start no restored object whose run has made another model: a person decides."""
    run.conditions.set(ConditionType.ADMITTED, False, Reason.RESTORED_DIFFERS, message)
    run.set_not_running(Reason.RESTORED_DIFFERS)
    run.builder.add_event_if_changed(ConditionType.ADMITTED, warning=True)
    return run.close(ConditionType.RUNNING)


def wait_for_placement(run: RunDecision, problems: list[str]) -> Outcome:
    """Start no attempt that asks for nodes or a priority that the platform does not permit."""
    run.conditions.set(ConditionType.ADMITTED, False, bounds.CODE, "; ".join(problems))
    run.set_not_running(bounds.CODE)
    return run.close(ConditionType.RUNNING)


def back_off(run: RunDecision, start: datetime) -> Outcome:
    """Wait until the next attempt is due."""
    builder, attempts = run.builder, run.attempts
    reason = attempts.last.get("reason") if attempts.last else None
    used = f"{attempts.failures} of {run.spec.restarts.max_restarts} restarts used"
    failed = f"Attempt {attempts.count} failed with {reason}"
    message = f"{failed}; attempt {attempts.count + 1} starts at {format_time(start)} ({used})."
    run.set_not_running(Reason.BACK_OFF, message)
    builder.check_in(builder.until(start))
    run.announce_end_of_attempt()
    return run.close(ConditionType.RUNNING)


def wait_in_line(run: RunDecision, line: Line) -> Outcome:
    """Wait until fewer jobs of the namespace train."""
    run.builder.put(
        queue={
            "reason": MAX_ACTIVE,
            "position": line.position,
            "message": line.message,
            "since": run.waits_since or run.builder.time,
        }
    )
    run.conditions.set(ConditionType.ADMITTED, False, Reason.QUEUED, line.message)
    run.set_not_running(Reason.QUEUED)
    run.announce_end_of_attempt()
    run.builder.check_in(line.look_again_in)
    return run.close(ConditionType.RUNNING)


def wait_for_kueue(run: RunDecision, place: QueuePlace) -> Outcome:
    """Wait for Kueue: for the first time, or because it took the quota back.

    An event says what Kueue answers first and each later change, but not that the Job entered its queue.
    """
    before = run.conditions.before(ConditionType.ADMITTED)
    run.conditions.set(ConditionType.ADMITTED, False, place.reason, place.message)
    is_first_word = queueing.is_before_kueue(before.get("message", ""))
    is_news = is_first_word or run.conditions.changed(ConditionType.ADMITTED)
    if is_news and not queueing.is_before_kueue(place.message):
        needs_a_person = place.reason in (Reason.DEACTIVATED, Reason.QUEUE_NOT_FOUND)
        run.builder.add_event(place.reason, place.message, warning=needs_a_person)
    run.set_not_running(place.reason)
    return run.close(ConditionType.RUNNING)


def wait_for_stopping_pods(run: RunDecision) -> Outcome:
    """Wait for the last attempt's pods: two sets of pods must not write the same checkpoints."""
    job_name = run.attempts.last.get("jobName") if run.attempts.last else None
    run.conditions.keep(ConditionType.ADMITTED, Reason.PENDING)
    message = f"Job {job_name} was deleted; its pods are stopping."
    if orphans := run.seen.orphaned:
        namespace = run.builder.body["metadata"]["namespace"]
        message = (
            f"Job {job_name} was deleted without its pods, which still write the run's checkpoints. The next attempt "
            f"starts when they have ended; to end them now: kubectl delete pod {' '.join(orphans)} -n {namespace}"
        )
    run.set_not_running(Reason.STOPPING, message)
    run.builder.check_in(STOPPING_SECONDS)
    return run.close(ConditionType.RUNNING)


def resize(run: RunDecision, record: AttemptJson) -> Outcome:
    """Wait until the attempt that ends for want of nodes is gone."""
    message = f"Attempt {record['number']} ends; the next one asks for {record.get('nextNodes')} pods."
    run.conditions.set(ConditionType.ADMITTED, False, Reason.RESIZED, message)
    run.set_not_running(Reason.RESIZED, message)
    return run.close(ConditionType.RUNNING)


def pause(run: RunDecision) -> Outcome:
    """Wait until the user takes `spec.suspend` back."""
    run.conditions.set(ConditionType.ADMITTED, False, Reason.SUSPENDED, "")
    run.set_not_running(Reason.SUSPENDED)
    run.announce_end_of_attempt()
    return run.close(ConditionType.SUSPENDED)
