"""What all stages of a decision about an accepted FineTuneJob share, and how a decision without an end closes."""

from collections.abc import Mapping
from typing import Any

from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.words.failures import FailureCode
from hone_api.words.states import GATES, AnyReason, AttemptOutcome, ConditionType, Reason
from hone_operator.desired.core.platform import Platform
from hone_operator.progress.numbers import newest
from hone_operator.reconcile.core.line import MAX_ACTIVE
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.outcome_builder import JobBuilder
from hone_operator.reconcile.gates.gates import GateKeeper
from hone_operator.reconcile.run import adjustments, elastic
from hone_operator.reconcile.run.run_attempts import Now, observe_attempts
from hone_operator.reconcile.run.terminal import phase
from hone_operator.reconcile.staging import inputs
from hone_operator.reconcile.staging.observed import Observed, of_component

RECHECK_SECONDS = 15.0
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


class RunDecision:
    """One decision about an accepted job: what was observed of it, and the builder that the stages write into."""

    def __init__(self, builder: JobBuilder, spec: FineTuneJobSpec, seen: Observed, platform: Platform):
        self.builder, self.spec, self.seen, self.platform = builder, spec, seen, platform
        self.conditions = builder.conditions
        self.jobs = of_component(seen.jobs, "training")
        deleted = builder.time if seen.stopping == 0 else None
        now = Now(spec.suspend, builder.now, seen.report or newest(builder.old), deleted, seen.stranded)
        self.attempts = observe_attempts(builder.body, self.jobs, now)
        self.gate_keeper = GateKeeper(builder, spec, seen, platform, begun=bool(self.attempts.records))

    @property
    def nodes(self) -> int:
        """Pods of the attempt that has not ended, or else of the next one."""
        job = self.attempts.job
        return job.nodes if job and not job.finished else elastic.next_nodes(self.spec, self.attempts.records)

    @property
    def requested_pods(self) -> str:
        """A sentence for condition Admitted."""
        nodes = self.nodes
        return "1 pod was requested." if nodes == 1 else f"{nodes} pods were requested."

    @property
    def was_in_line(self) -> bool:
        """Whether the job waited for other jobs of the namespace."""
        queue = self.builder.old.get("queue")
        return queue is not None and queue.get("reason") == MAX_ACTIVE

    @property
    def waits_since(self) -> str | None:
        """When the job began to wait for other jobs of the namespace; None: it does not wait."""
        queue = self.builder.old.get("queue")
        return queue.get("since") if queue and self.was_in_line else None

    def unfinished(self) -> list[Mapping[str, Any]]:
        """Every Job of this FineTuneJob that has not ended."""
        return [j.body for j in self.seen.jobs if not j.finished]

    def set_not_running(self, reason: AnyReason, message: str = "") -> None:
        """Set condition Running to False."""
        self.conditions.set(ConditionType.RUNNING, False, reason, message)

    def announce_end_of_attempt(self) -> None:
        """Emit an event that says why the last attempt ended, unless the user suspended it."""
        cause, last = self.attempts.cause, self.attempts.last
        if cause and last and last["outcome"] != AttemptOutcome.SUSPENDED:
            reason = (
                Reason.PREEMPTED
                if cause.code in (FailureCode.DISRUPTED, FailureCode.INTERRUPTED)
                else Reason.RESTARTING
            )
            records = self.attempts.records
            difference = adjustments.in_words(records, self.spec.restarts) or elastic.in_words(self.spec, records)
            self.builder.add_event(reason, f"{cause.code}: {cause.message}{difference}", warning=True)

    def close(self, gate: ConditionType) -> Outcome:
        """Close a decision without an end; `gate` is the condition that the job waits for."""
        c = self.conditions
        for type_ in (ConditionType.SUCCEEDED, ConditionType.FAILED, ConditionType.FINISHED):
            c.set(type_, False, Reason.NOT_FINISHED, "")
        cause = (
            c.get(ConditionType.ADMITTED)
            if gate == ConditionType.RUNNING and c.get(ConditionType.ADMITTED)["status"] == "False"
            else c.get(gate)
        )
        if gate in GATES and cause["reason"] not in AS_PLANNED:
            self.builder.add_event_if_changed(gate, warning=cause["reason"] not in inputs.HEALTHY)
        self.builder.ready(False, cause["reason"], cause["message"], reconciling=gate != ConditionType.SUSPENDED)
        upcoming = self.attempts.count + (1 if self.attempts.records and not self.attempts.open else 0)
        shown = phase(c, upcoming)
        self.builder.put(phase=shown, reason=cause["reason"] if cause["reason"] != shown else None)
        return self.builder.outcome()
