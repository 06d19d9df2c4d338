"""The signature of a ModelVersion whose files match: one Job for each attempt, and what follows without one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.contract.report import SignResult
from hone_api.kinds.modelversion import ModelVersionSpec, SignatureStatus
from hone_api.words.failures import Retry
from hone_api.words.states import AnyReason, ConditionType, Quoted, Reason
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.version.sign import COMPONENT, sign
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.reconcile.core.outcome_builder import VersionBuilder, as_json
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.refusals import final_refusal
from hone_operator.reconcile.staging import retrying
from hone_operator.reconcile.staging.observed import of_component
from hone_operator.reconcile.staging.staging_attempts import StagingAttempts, observe_attempts, start_timeout_cause

RECHECK_SECONDS = 15.0
SIGNED = "A key of the platform has signed every file."
WORKING = "The files are being signed."


@dataclass(frozen=True)
class SignatureVerdict:
    """What the signature lets happen."""

    usable: bool
    """Whether the model may be used: it is signed, or need not be."""
    settled: bool
    """Whether waiting changes nothing."""
    signed: bool
    reason: AnyReason
    message: str


UNASKED = SignatureVerdict(usable=True, settled=True, signed=False, reason=Reason.VERIFIED, message="")


def reconcile(
    builder: VersionBuilder,
    spec: ModelVersionSpec,
    jobs: Sequence[ObservedJob],
    refusals: Sequence[Refusal],
    platform: Platform,
) -> SignatureVerdict:
    """The next step to the signature of a verified ModelVersion; sets condition Signed where some signatures count."""
    own = of_component(jobs, COMPONENT)
    if not platform.signing.public_keys:
        builder.delete += [job.body for job in own]
        return UNASKED
    before: Any = builder.old.get("signature") or {}
    if platform.signing.counts(before.get("key")):
        builder.delete += [job.body for job in own]  # the status has all they say
        return _signed(builder, platform)
    return _Attempts(builder, spec, refusals, platform, observe_attempts(own), before.get("tries") or 0).step()


def _signed(builder: VersionBuilder, platform: Platform) -> SignatureVerdict:
    builder.conditions.set(ConditionType.SIGNED, True, Reason.SIGNED, SIGNED)
    builder.add_event_if_changed(ConditionType.SIGNED)
    return SignatureVerdict(usable=True, settled=True, signed=True, reason=Reason.SIGNED, message=SIGNED)


@dataclass(frozen=True)
class _Attempts:
    """The signature of one version that has none yet."""

    builder: VersionBuilder
    spec: ModelVersionSpec
    refusals: Sequence[Refusal]
    platform: Platform
    attempts: StagingAttempts
    counted: int

    def step(self) -> SignatureVerdict:
        """What is known, after the next Job was requested if one is due."""
        attempts, builder = self.attempts, self.builder
        number = max(attempts.number, self.counted)
        if attempts.ending and isinstance(attempts.ending.result, SignResult) and attempts.job and not attempts.cause:
            key = attempts.ending.result.key
            if self.platform.signing.counts(key):
                builder.put(signature=as_json(SignatureStatus(key=key, signed_at=attempts.job.ended_at, tries=number)))
                builder.delete += [attempts.job.body, *attempts.older]
                return _signed(builder, self.platform)
            return self._begin(number, None)  # keys were replaced while it ran
        if attempts.cause and builder.conditions.given_up_before(ConditionType.SIGNED):
            before = builder.conditions.before(ConditionType.SIGNED)  # the Job forgets why when its pod is gone
            return self._unsigned(Quoted(before["reason"]), before.get("message", ""), final=True)
        cause = attempts.cause or start_timeout_cause(
            attempts, builder.now, self.platform.trainer.start_timeout_seconds
        )
        if cause and (cause.retry is Retry.NEVER or attempts.cause is None):
            builder.delete += [*attempts.older, attempts.job.body] if attempts.active and attempts.job else []
            return self._unsigned(cause.code, cause.message, final=True)
        if attempts.active and attempts.job:
            return self._underway(attempts.job, number)
        start = attempts.next_start()
        if cause and start and start > builder.now:
            builder.check_in(builder.until(start))
            return self._unsigned(cause.code, retrying.later(cause.advice, number + 1, start))
        return self._begin(number, retrying.underway(cause.advice, number + 1) if cause else None)

    def _underway(self, job: ObservedJob, number: int) -> SignatureVerdict:
        self.builder.await_start(job)
        if self.attempts.obstacle:
            self.builder.check_in(RECHECK_SECONDS)
        if number > 1 and self.builder.conditions.failed_before(ConditionType.SIGNED):
            return self._unsigned(*retrying.still(self.builder.conditions.before(ConditionType.SIGNED), self.attempts))
        if self.attempts.obstacle:
            return self._unsigned(self.attempts.obstacle.reason, self.attempts.obstacle.message)
        return self._unsigned(Reason.SIGNING, WORKING)

    def _begin(self, number: int, again: str | None) -> SignatureVerdict:
        builder, attempts = self.builder, self.attempts
        objects = sign(builder.body, self.spec, number + 1, self.platform)
        builder.create += objects
        builder.delete += [*attempts.older, *([attempts.job.body] if attempts.job else [])]
        builder.put(signature=as_json(SignatureStatus(tries=number + 1)))
        refused = [r for r in self.refusals if r.name in {body["metadata"]["name"] for body in objects}]
        if final := final_refusal(refused):
            return self._unsigned(final.code, final.message, final=True)
        for refusal in refused:
            builder.check_in(RECHECK_SECONDS)
            return self._unsigned(refusal.reason, refusal.message)
        if again and attempts.cause:
            return self._unsigned(attempts.cause.code, again)
        return self._unsigned(Reason.SIGNING, WORKING)

    def _unsigned(self, reason: AnyReason, message: str, final: bool = False) -> SignatureVerdict:
        self.builder.conditions.set(ConditionType.SIGNED, False, reason, message)
        if reason != Reason.SIGNING:
            self.builder.add_event_if_changed(ConditionType.SIGNED, warning=True)
        usable = not self.platform.signing.required
        return SignatureVerdict(usable=usable, settled=final, signed=False, reason=reason, message=message)
