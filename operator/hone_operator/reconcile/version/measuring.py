"""spec.evaluations of a ModelVersion: one Job for each attempt at each entry. Pure.

An entry is measured again if the content of its Dataset changes, or if its alias moves to a version that this one could
replace. A version that was promoted keeps its comparison with the one it replaced: what came later says nothing about
whether it was right to use it, or whether to go back to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from hone_api.base.meta import alias_of
from hone_api.blocks.evaluation import VersionEvaluation
from hone_api.contract.report import MeasureResult
from hone_api.kinds.modelversion import Measurement, ModelVersionSpec
from hone_api.methods import Method
from hone_api.words.failures import FailureCode
from hone_api.words.states import AnyReason, ConditionType, MeasurementState, Reason
from hone_operator.desired.core import modelref, names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.version.measure import COMPONENT, MeasuringTask, measure
from hone_operator.reconcile.core import upstream
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.reconcile.core.outcome_builder import VersionBuilder, as_json
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.upstream import Found, Upstream
from hone_operator.reconcile.staging.entry_jobs import (
    MAX_MESSAGE,
    RECHECK_SECONDS,
    EntryJobs,
    EntryMemory,
    EntryObstacle,
    EntryProgress,
    EntryStage,
    set_condition,
)
from hone_operator.reconcile.staging.inputs import Datasets, dataset_problem
from hone_operator.reconcile.staging.observed import of_component
from hone_operator.reconcile.staging.staging_attempts import observe_attempts

STATES = {
    EntryStage.PENDING: MeasurementState.PENDING,
    EntryStage.WORKING: MeasurementState.MEASURING,
    EntryStage.FAILED: MeasurementState.FAILED,
}
RESULT = ("digest", "against", "numbers", "evaluated_at")
"""Fields of the last measurement, which stay while the next one is made."""


@dataclass(frozen=True)
class ObservedForEvaluations:
    """What spec.evaluations depends on."""

    datasets: Datasets = field(default_factory=dict)
    """The existing ones of those that entries name."""
    upstream: Upstream = field(default_factory=Upstream)
    """Models and ModelVersions that entries name, and those to which aliases point."""


def reconcile(
    builder: VersionBuilder,
    spec: ModelVersionSpec,
    seen: ObservedForEvaluations,
    children: Sequence[ObservedJob],
    refusals: Sequence[Refusal],
    platform: Platform,
) -> None:
    """The next step of each entry of a ModelVersion that is Ready; sets status.evaluations and condition Measured."""
    jobs, before = of_component(children, COMPONENT), _remembered(builder.old.get("evaluations") or ())
    states = []
    for entry in spec.evaluations or ():
        one = _EvaluationEntry(builder, spec, entry, before.get((entry.dataset, entry.split)), seen, refusals, platform)
        states.append(one.step(jobs))
    keys = {state.key for state in states}
    builder.delete += [job.body for job in jobs if _key(job) not in keys]
    builder.put(evaluations=[as_json(state) for state in states] or None)
    summary = f"Measured on {', '.join(state.title for state in states)}."
    set_condition(builder, ConditionType.MEASURED, states, Reason.MEASURING, Reason.MEASURED, summary)


def _remembered(entries: Sequence[Any]) -> dict[tuple[str, str], Measurement]:
    """What the status said; an entry that another version of Hone wrote is as if it were absent."""
    out = {}
    for entry in entries:
        try:
            measurement = Measurement.model_validate(entry)
        except ValidationError:
            continue
        out[measurement.dataset, measurement.split] = measurement
    return out


def _key(job: ObservedJob) -> str:
    return str(job.body["metadata"]["labels"].get(names.CONTENT))


@dataclass(frozen=True)
class _EvaluationEntry:
    """One entry, as the attempts at it need it."""

    builder: VersionBuilder
    spec: ModelVersionSpec
    entry: VersionEvaluation
    old: Measurement | None
    seen: ObservedForEvaluations
    refusals: Sequence[Refusal]
    platform: Platform
    working = (Reason.MEASURING, "The model is being measured.")

    def step(self, jobs: Sequence[ObservedJob]) -> Measurement:
        """Its state, after its next Job was requested if one is due."""
        problem = dataset_problem(self.entry.dataset, self.entry.split, self.seen.datasets)
        if problem:
            return self._waits(*problem)
        other = self._other()
        if isinstance(other, EntryObstacle):
            self.builder.check_in(other.check_in)
            return self._waits(other.reason, other.message)
        try:
            model = modelref.pin(self.builder.body["metadata"]["name"], self.spec)
        except modelref.UnusableModelError as error:
            failed = EntryProgress(EntryStage.FAILED, FailureCode.UNUSABLE_MODEL_VERSION, str(error), 0)
            return self._shown(names.digest(self.entry.to_json()), failed)
        digest = self.seen.datasets[self.entry.dataset]["status"]["digest"]
        measured = MeasuringTask(self.entry, digest, model, other.model if other else None)
        return self._measured(measured, [job for job in jobs if _key(job) == measured.key])

    def _measured(self, measured: MeasuringTask, jobs: Sequence[ObservedJob]) -> Measurement:
        old = self.old if self.old and self.old.key == measured.key else None
        if old and old.state == MeasurementState.MEASURED:
            self.builder.delete += [job.body for job in jobs]  # the status has all they say
            return old
        attempts, before = observe_attempts(jobs), EntryMemory.of(old.to_json() if old else None)
        if (result := attempts.result_of(MeasureResult)) and attempts.job:
            self.builder.delete += [job.body for job in jobs]
            number = max(attempts.number, before.number)
            return self._evaluated(measured, result, number, attempts.job.ended_at)
        work = _MeasuringWork(self, measured)
        entry_jobs = EntryJobs(self.builder, work, self.platform.trainer.start_timeout_seconds, self.refusals)
        return self._shown(measured.key, entry_jobs.step(attempts, before))

    def _other(self) -> Found | EntryObstacle | None:
        """The version to compare with; None: there is none."""
        name = self.entry.against
        if name and (alias := alias_of(name)):
            model = self.seen.upstream.models.get(alias[0])
            if model is not None and not upstream.is_seen(model):
                words = f"Model {alias[0]} has changed, and the operator has not seen it yet."
                return EntryObstacle(Reason.MODEL_MISSING, words, RECHECK_SECONDS)
            name = upstream.target(alias, self.seen.upstream)
            if name and self._is_later(name):
                name = self._before()
        if not name:
            return None
        other = upstream.version(name, self.seen.upstream, reward=self.spec.lineage.method == Method.REWARD)
        if isinstance(other, Found):
            return other
        reason = other.reason if isinstance(other, upstream.Wait) else other.code
        return EntryObstacle(reason, f"against: {other.message}", RECHECK_SECONDS)

    def _is_later(self, name: str) -> bool:
        """Whether a version is this one, or a newer one of the same model."""
        other = self.seen.upstream.versions.get(name, {}).get("spec") or {}
        return bool(other.get("modelName") == self.spec.model_name and other.get("version", 0) >= self.spec.version)

    def _before(self) -> str | None:
        """The version that was compared with before, if it still exists."""
        before = self.old.against if self.old and self.old.against else self.spec.evaluation.against
        return before if before and before in self.seen.upstream.versions else None

    def _waits(self, reason: AnyReason, message: str) -> Measurement:
        """What is to be measured is not known yet: what was measured stays, and a Job that runs goes on."""
        if self.old and self.old.state in (MeasurementState.MEASURED, MeasurementState.FAILED):
            return self.old
        return self._shown(self.old.key if self.old else "", EntryProgress(EntryStage.PENDING, reason, message, 0))

    def _shown(self, key: str, now: EntryProgress) -> Measurement:
        last = {name: getattr(self.old, name) for name in RESULT} if self.old else {}
        return Measurement(
            dataset=self.entry.dataset,
            split=self.entry.split,
            key=key,
            state=STATES[now.stage],
            reason=str(now.reason),
            message=now.message[:MAX_MESSAGE],
            tries=now.number or None,
            **last,
        )

    def _evaluated(self, measured: MeasuringTask, result: MeasureResult, number: int, at: str) -> Measurement:
        alias = alias_of(self.entry.against)
        points = upstream.target(alias, self.seen.upstream) if alias else None
        alone = alias is not None and measured.other is None and points is not None
        words = f"{self.entry.against} points to {points}, which this version cannot replace, and it was compared with "
        none = "" if alias and points is None else None
        return Measurement(
            dataset=self.entry.dataset,
            split=self.entry.split,
            key=measured.key,
            state=MeasurementState.MEASURED,
            message=f"{words}none before: it is compared with its base alone." if alone else None,
            tries=number,
            digest=measured.digest,
            against=measured.other.name if measured.other else none,
            numbers=result.numbers,
            evaluated_at=at,
        )


@dataclass(frozen=True)
class _MeasuringWork:
    """What `EntryJobs` asks of a measurement."""

    of: _EvaluationEntry
    measured: MeasuringTask
    working = _EvaluationEntry.working

    def obstacles(self) -> Iterator[EntryObstacle]:
        """All are known before there is a key."""
        return iter(())

    def objects(self, number: int) -> list[dict[str, Any]]:
        """The Job of attempt `number`, and what it needs."""
        return measure(self.of.builder.body, self.of.spec, self.measured, number, self.of.platform)
