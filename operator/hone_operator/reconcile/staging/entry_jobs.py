"""One entry of an object that a Job works through: an import, a delivery, what a registry lacks. Pure.

Decides for all of them alike when the next attempt starts, when none can help, and what the status says meanwhile.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from hone_api.blocks.entries import EntryStatus
from hone_api.words.failures import Retry
from hone_api.words.states import AnyReason, ConditionType, ImportState, Quoted, Reason
from hone_operator.desired.core import names
from hone_operator.reconcile.core import conditions
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.reconcile.core.outcome_builder import OutcomeBuilder
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.refusals import final_refusal
from hone_operator.reconcile.staging import retrying
from hone_operator.reconcile.staging.staging_attempts import StagingAttempts, observe_attempts, start_timeout_cause

RECHECK_SECONDS = 15.0
MAX_ASKED = 253
MAX_MESSAGE = 2000
"""Characters of the message of an entry."""


class EntryStage(Enum):
    """What an entry that is not done does."""

    PENDING = auto()
    WORKING = auto()
    FAILED = auto()


class EntryProgress(NamedTuple):
    """What the status says of an entry that is not done."""

    stage: EntryStage
    reason: AnyReason
    message: str
    number: int
    """Of Jobs so far."""


class EntryMemory(NamedTuple):
    """What the status said before."""

    number: int = 0
    failed: bool = False
    """Whether it had been given up."""
    reason: AnyReason | None = None
    message: str | None = None

    @classmethod
    def of(cls, old: Any) -> "EntryMemory":
        """Of an entry of status.imports or status.deliveries; None: it has none yet."""
        if not old:
            return cls()
        reason = Quoted(old["reason"]) if old.get("reason") else None
        return cls(old.get("tries") or 0, old["state"] == ImportState.FAILED, reason, old.get("message"))


class EntryObstacle(NamedTuple):
    """What must change before a Job can begin."""

    reason: AnyReason
    message: str
    check_in: float | None = None
    """Seconds until it is looked at again; None: its change is an event."""
    stops: bool = False
    """Whether a Job that runs is deleted. The next one goes on with what it did."""


class EntryWork(Protocol):
    """What is an entry's own."""

    @property
    def working(self) -> tuple[AnyReason, str]:
        """Reason and message while a Job works at it."""

    def obstacles(self) -> Iterator[EntryObstacle]:
        """What must change before a Job can begin."""

    def objects(self, number: int) -> list[dict[str, Any]]:
        """The Job of attempt `number`, and what it needs."""


@dataclass(frozen=True)
class EntryJobs:
    """The attempts at one entry."""

    builder: OutcomeBuilder
    work: EntryWork
    start_timeout_seconds: float
    refusals: Sequence[Refusal] = ()

    def step(self, attempts: StagingAttempts, before: EntryMemory) -> EntryProgress:
        """Where it stands, after its next Job was requested if one is due."""
        number = max(attempts.number, before.number)
        if is_asked_again(self.builder) and not attempts.active and not self._is_answer(attempts):
            self.builder.delete += [*attempts.older, *([attempts.job.body] if attempts.job else [])]
            attempts, before = observe_attempts(()), EntryMemory(number)
        if before.failed and not attempts.active:  # whatever its Job shows once its pod is gone
            return EntryProgress(EntryStage.FAILED, before.reason or self.work.working[0], before.message or "", number)
        cause = attempts.cause or start_timeout_cause(attempts, self.builder.now, self.start_timeout_seconds)
        if cause and (cause.retry is Retry.NEVER or attempts.cause is None):
            self.builder.delete += [attempts.job.body] if attempts.active and attempts.job else []
            return EntryProgress(EntryStage.FAILED, cause.code, cause.message, number)
        obstacle = next(iter(self.work.obstacles()), None)
        if attempts.active and attempts.job:
            if obstacle is None or not obstacle.stops or attempts.job.result():
                return self._underway(attempts, attempts.job, number, before)
            self.builder.delete.append(attempts.job.body)
        if obstacle:
            self.builder.check_in(obstacle.check_in)
            return EntryProgress(EntryStage.PENDING, obstacle.reason, obstacle.message, number)
        start = attempts.next_start()
        if cause and start and start > self.builder.now:
            self.builder.check_in(self.builder.until(start))
            return EntryProgress(
                EntryStage.PENDING, cause.code, retrying.later(cause.advice, number + 1, start), number
            )
        return self._begin(attempts, number)

    def _is_answer(self, attempts: StagingAttempts) -> bool:
        """Whether the newest Job was made after somebody asked. Definitions that are older lack status.retried."""
        annotations: Mapping[str, Any] = (
            attempts.job.body["metadata"].get("annotations") if attempts.job else None
        ) or {}
        return annotations.get(names.RETRY) == retry_request(self.builder)

    def _underway(self, attempts: StagingAttempts, job: ObservedJob, number: int, before: EntryMemory) -> EntryProgress:
        self.builder.await_start(job)
        if attempts.obstacle:
            self.builder.check_in(RECHECK_SECONDS)
            return EntryProgress(EntryStage.PENDING, attempts.obstacle.reason, attempts.obstacle.message, number)
        reason, message = self.work.working
        if number > 1 and before.message:
            reason, message = before.reason or reason, retrying.underway(retrying.cut(before.message), number)
        return EntryProgress(EntryStage.WORKING, reason, message, number)

    def _begin(self, attempts: StagingAttempts, number: int) -> EntryProgress:
        objects = self.work.objects(number + 1)
        if (value := retry_request(self.builder)) is not None:
            for body in objects:
                body["metadata"].setdefault("annotations", {})[names.RETRY] = value
        refused = [r for r in self.refusals if r.name in {body["metadata"]["name"] for body in objects}]
        if final := final_refusal(refused):
            return EntryProgress(EntryStage.FAILED, final.code, final.message, number)
        self.builder.create += objects
        self.builder.delete += [*attempts.older, *([attempts.job.body] if attempts.job else [])]
        for refusal in refused:
            self.builder.check_in(RECHECK_SECONDS)
            return EntryProgress(EntryStage.PENDING, refusal.reason, refusal.message, number)
        reason, message = self.work.working
        if attempts.cause:
            reason, message = attempts.cause.code, retrying.underway(attempts.cause.advice, number + 1)
        return EntryProgress(EntryStage.WORKING, reason, message, number + 1)


def is_asked_again(builder: OutcomeBuilder) -> bool:
    """Whether somebody asked to start again what has failed, and that was not done yet."""
    request = retry_request(builder)
    return request is not None and request != (builder.body.get("status") or {}).get("retried")


def retry_request(builder: OutcomeBuilder) -> str | None:
    """The value of the annotation that asks to try again, shortened to what a status holds; None: there is none."""
    value = (builder.body["metadata"].get("annotations") or {}).get(names.RETRY)
    return None if value is None else str(value)[:MAX_ASKED]


def with_retry(message: str, builder: OutcomeBuilder) -> str:
    """What was given up and why, and a command for it, which is never cut off."""
    command = _how_to_retry(builder)
    return f"{message[: conditions.MAX_MESSAGE - len(command) - 2].rstrip('.')}. {command}"


def without_retry(message: str, builder: OutcomeBuilder) -> str:
    """The message without the command."""
    return message.removesuffix(_how_to_retry(builder)).rstrip()


def _how_to_retry(builder: OutcomeBuilder) -> str:
    kind, name = f"{builder.body['kind'].lower()}s.hone.dev", builder.body["metadata"]["name"]
    return f'To try again: kubectl annotate {kind} {name} {names.RETRY}="$(date +%s)" --overwrite'


def set_condition(
    builder: OutcomeBuilder,
    type_: ConditionType,
    entries: Sequence[EntryStatus],
    working: Reason,
    done: Reason,
    summary: str,
) -> None:
    """One condition for all entries, and an Event when they are done or one of them has failed.

    Args:
        working: reason of the condition while nothing keeps a Job from its work.
        done: reason of the condition once all entries are done, and the last state of each.
        summary: message of the condition then.
    """
    if not entries:
        return
    unfinished = [entry for entry in entries if entry.state != done.value]
    if not unfinished:
        builder.conditions.set(type_, True, done, summary)
    else:
        worst = next((entry for entry in unfinished if entry.is_failed), unfinished[0])
        words = "; ".join(f"{entry.title}: {entry.message}" for entry in unfinished)
        words = with_retry(words, builder) if worst.is_failed else words
        builder.conditions.set(type_, False, Quoted(worst.reason) if worst.reason else working, words)
    failed = any(entry.is_failed or (entry.tries or 0) > 1 for entry in unfinished)
    if failed or not unfinished:
        builder.add_event_if_changed(type_, warning=failed)
