"""An attempt whose Job has not ended: what its pods and its queue say, and what to do about it."""

from datetime import timedelta

from hone_api.words.failures import FailureCode
from hone_api.words.states import AttemptOutcome, ConditionType, Reason
from hone_operator.desired.core.job import suspension
from hone_operator.desired.run.attempt import image
from hone_operator.desired.run.rank_network import network
from hone_operator.reconcile.core import idle, queueing
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.outcome_builder import as_json
from hone_operator.reconcile.core.pods import ObservedJob, Waiting, unbound_claims, waiting
from hone_operator.reconcile.run import elastic, run_waits
from hone_operator.reconcile.run.run_decision import RECHECK_SECONDS, RunDecision
from hone_operator.reconcile.run.terminal import fail
from hone_operator.times import parse_time

NETWORK_SECONDS = 300.0
"""Seconds between checks of the Service and NetworkPolicy of training ranks; before the first step they may be
waiting."""


def watch(run: RunDecision, job: ObservedJob) -> Outcome:
    """Follow an attempt whose Job has not ended."""
    if job.queue:
        _follow_queue(run, job)
    elif job.is_suspended and not run.spec.suspend and run.seen.line and not run.seen.line.is_open:
        return run_waits.wait_in_line(run, run.seen.line)
    elif job.is_suspended != run.spec.suspend:
        if run.was_in_line and "idleSince" in run.attempts.records[-1]:
            idle.count_queue(run.attempts.records[-1], run.builder.now)
        run.builder.apply.append(suspension(job.body, run.spec.suspend))
    pinned = run.gate_keeper.pinned
    run.builder.put(resolved=as_json(pinned) if pinned else run.builder.old.get("resolved"))
    run.builder.await_start(job)
    _look_after_network(run, job)
    if run.spec.suspend:
        return run_waits.pause(run)
    if resized := _resize(run, job):
        return resized
    if queueing.keeps_waiting(job):
        return run_waits.wait_for_kueue(run, _place(run, job))
    obstacle = waiting(job)
    _set_admitted(run, job, obstacle)
    if obstacle and obstacle.code == FailureCode.IMAGE_PULL_FAILED and _is_image_corrected(run):
        return _replace_image(run, job, obstacle.message)
    if obstacle and obstacle.code and obstacle.since:
        limit = obstacle.since + timedelta(seconds=run.platform.trainer.start_timeout_seconds)
        if limit <= run.builder.now:
            run.set_not_running(obstacle.reason, obstacle.message)
            return fail(run.builder, Cause(obstacle.code, obstacle.message), run.unfinished())
        message = run.conditions.kept(ConditionType.RUNNING, obstacle.reason, obstacle.message)
        run.set_not_running(obstacle.reason, message)
        run.builder.add_event_if_changed(ConditionType.RUNNING, warning=True)
        run.builder.check_in(run.builder.until(limit))
    elif job.running >= job.nodes:
        message = f"Attempt {run.attempts.count} is running."
        run.conditions.set(ConditionType.RUNNING, True, Reason.RUNNING, message)
        if not run.conditions.was_true(ConditionType.RUNNING):
            run.builder.add_event(Reason.STARTED, message)
    else:
        run.set_not_running(Reason.STARTING, _starting(run, job))
    return run.close(ConditionType.RUNNING)


def _starting(run: RunDecision, job: ObservedJob) -> str:
    """What an attempt does that has not all of its pods."""
    if job.body["spec"].get("parallelism") == 0:
        patch = f"""kubectl patch job {job.name} -n {job.body["metadata"]["namespace"]} --type merge"""
        return (
            f"Attempt {run.attempts.count} gets no pods, because somebody has set spec.parallelism of its Job to 0: "
            f"""{patch} -p '{{"spec":{{"parallelism":{job.nodes}}}}}'"""
        )
    return f"Attempt {run.attempts.count} is starting."


def _resize(run: RunDecision, job: ObservedJob) -> Outcome | None:
    """End an attempt that waits in vain for nodes or quota, so that the next one has fewer; None: it goes on.

    The status has the decision before the Job is deleted.
    """
    builder, attempts = run.builder, run.attempts
    record = attempts.records[-1]
    if record["outcome"] != AttemptOutcome.RESIZED:
        lack = elastic.shortage(run.spec, attempts.records, job, run.platform.kueue.enabled)
        if lack is None:
            return None
        resumed = parse_time(run.conditions.get(ConditionType.SUSPENDED)["lastTransitionTime"])
        since = max(lack.since, resumed)  # a suspended run waits for nobody
        limit = since + timedelta(seconds=run.platform.trainer.fewer_nodes_after_seconds)
        if limit > builder.now:
            builder.check_in(builder.until(limit))
            return None
        if queueing.keeps_waiting(job):
            idle.count_queue(record, builder.now)
        record |= {"outcome": AttemptOutcome.RESIZED, "nextNodes": lack.nodes}
        builder.put(**attempts.to_status())
        waited = round((builder.now - since).total_seconds())
        builder.add_event(Reason.RESIZED, elastic.fewer(run.spec, attempts.count, job, lack.nodes, waited))
    builder.delete.append(job.body)
    return run_waits.resize(run, record)


def _follow_queue(run: RunDecision, job: ObservedJob) -> None:
    """Show the place in the queue, and pass the user's suspension on to Kueue."""
    run.builder.put(queue=_place(run, job).status)
    if run.platform.kueue.enabled and (change := queueing.pass_on(job, run.spec.suspend)):
        run.builder.apply.append(change)


def _place(run: RunDecision, job: ObservedJob) -> queueing.QueuePlace:
    """The place in the queue that the status shows."""
    if run.platform.kueue.enabled and (seconds := queueing.silent_for(job, run.builder.now)):
        run.builder.check_in(seconds)
        return queueing.at_the_end(job.name, job.queue)
    return queueing.place(job, run.platform.kueue.enabled)


def _look_after_network(run: RunDecision, job: ObservedJob) -> None:
    """Create the Service and NetworkPolicy of the ranks again if they are gone, and look again later."""
    if run.seen.network_lost:
        run.builder.create += network(run.builder.body, run.attempts.count, run.platform)
    if job.nodes > 1 and job.scheduled:
        report = run.seen.report
        trains = report and report.attempt == run.attempts.count and report.trained
        run.builder.check_in(NETWORK_SECONDS if trains else RECHECK_SECONDS)


def _set_admitted(run: RunDecision, job: ObservedJob, obstacle: Waiting | None) -> None:
    """Set condition Admitted from where the pods are."""
    if obstacle and not obstacle.scheduled:
        run.conditions.set(ConditionType.ADMITTED, False, obstacle.reason, obstacle.message)
        run.builder.add_event_if_changed(ConditionType.ADMITTED, warning=True)
        if job.refused or unbound_claims(job.states):  # a watch delivers whatever else the pods wait for
            run.builder.check_in(RECHECK_SECONDS)
    elif job.scheduled >= job.nodes:
        run.conditions.set(ConditionType.ADMITTED, True, Reason.SCHEDULED, "")
    else:
        run.conditions.set(ConditionType.ADMITTED, None, Reason.PENDING, run.requested_pods)


def _is_image_corrected(run: RunDecision) -> bool:
    """Whether the platform's image has changed since the attempt began, e.g. by `helm rollback`."""
    pinned = run.gate_keeper.pinned
    return (pinned and pinned.image) not in (None, image(run.spec, run.platform))


def _replace_image(run: RunDecision, job: ObservedJob, message: str) -> Outcome:
    """Replace the attempt; none of its pods can have trained."""
    run.builder.delete.append(job.body)
    run.builder.add_event(Reason.IMAGE_CHANGED, f"{message} The next attempt uses the image that the platform has now.")
    run.set_not_running(Reason.IMAGE_CHANGED, message)
    return run.close(ConditionType.RUNNING)
