"""Whether this version runs a FineTuneJob: a refusal is final before the first attempt, and ends no run after it."""

from typing import NamedTuple

from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.unsupported import asked_for
from hone_api.words.failures import FailureCode
from hone_api.words.states import ConditionType, Reason
from hone_operator.desired.core import interconnect, names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.run.attempt import image, world_size
from hone_operator.reconcile.core import bounds, unsupported
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.outcome_builder import JobBuilder
from hone_operator.reconcile.core.refusals import storage_problem
from hone_operator.reconcile.core.upstream import cycle
from hone_operator.reconcile.run.terminal import fail
from hone_operator.reconcile.staging.observed import Observed, of_component

PARTIAL_ADMISSION = (
    f"metadata.annotations {names.MIN_PARALLELISM}: Kueue's partial admission is not supported, because it "
    "chooses the number of pods after the run's plan was written: remove the annotation, and set resources.minNodes, "
    "or set resources.nodes to what the quota has."
)


class RefusedSpec(NamedTuple):
    """Why this version does not run a spec."""

    reason: FailureCode
    message: str


def why_refused(spec: FineTuneJobSpec, seen: Observed, builder: JobBuilder, platform: Platform) -> RefusedSpec | None:
    """What this version or this installation cannot do; None if it can do everything."""
    if fields := asked_for(spec):
        return RefusedSpec(FailureCode.NOT_SUPPORTED_YET, unsupported.message(fields))
    if names.MIN_PARALLELISM in (builder.body["metadata"].get("annotations") or {}):
        return RefusedSpec(FailureCode.NOT_SUPPORTED_YET, PARTIAL_ADMISSION)
    wrong = [RefusedSpec(*problem) for problem in unsupported.contradictions(spec, world_size(spec))]
    if not image(spec, platform):
        words = "spec.grpo.generation.engine VLLM: this installation names no trainer.vllmImage"
        wrong.append(RefusedSpec(FailureCode.PLATFORM_UNSUITABLE, words))
    for problem in (
        storage_problem(spec.resources.nodes, platform),
        interconnect.problem(spec.resources.network, platform.trainer.networks.by_name),
    ):
        if problem:
            wrong.append(RefusedSpec(FailureCode.PLATFORM_UNSUITABLE, problem))
    if jobs := cycle(builder.body, seen.upstream):
        words = f"spec.model.fineTuneJob: circular reference: {' -> '.join(jobs)}; none of them can start"
        wrong.append(RefusedSpec(FailureCode.CIRCULAR_REFERENCE, words))
    if wrong:
        return RefusedSpec(wrong[0].reason, "; ".join(each.message for each in wrong))
    if asked := bounds.problems(builder.body, platform):
        return RefusedSpec(bounds.CODE, "; ".join(asked))
    return None


def begun(builder: JobBuilder, seen: Observed) -> bool:
    """Whether an attempt was started: then another version of Hone, or other settings, accepted the spec."""
    return bool(builder.old.get("attempts") or of_component(seen.jobs, "training"))


def report_refused(builder: JobBuilder, refused: RefusedSpec) -> None:
    """Set condition Accepted of a run that has begun."""
    words = f"{refused.message}. It was accepted before, so a running attempt continues, but no other is started."
    builder.conditions.set(ConditionType.ACCEPTED, False, refused.reason, words)
    builder.add_event_if_changed(ConditionType.ACCEPTED, warning=True)


def refuse(builder: JobBuilder, seen: Observed, refused: RefusedSpec) -> Outcome:
    """Final before the first attempt. After it the run is left unchanged until a version comes that can read the
    spec."""
    if begun(builder, seen):
        builder.conditions.keep_all()
        report_refused(builder, refused)
        return builder.outcome()
    reason, message = refused
    builder.conditions.set(ConditionType.ACCEPTED, False, reason, message)
    staged = [ConditionType.TASKS_READY] if (builder.body["spec"].get("evaluation") or {}).get("harness") else []
    for type_ in (
        ConditionType.DATASET_READY,
        ConditionType.MODEL_READY,
        *staged,
        ConditionType.ADMITTED,
        ConditionType.RUNNING,
        ConditionType.ADVISED,
    ):
        builder.conditions.set(type_, False, Reason.NOT_ACCEPTED, "")
    builder.conditions.set(ConditionType.SUSPENDED, False, Reason.NOT_ACCEPTED, "")
    return fail(builder, Cause(reason, message))
