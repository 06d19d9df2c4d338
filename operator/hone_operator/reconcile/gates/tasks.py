"""The data sets of evaluation.harness: staged by a Job before any GPU is requested, pinned by the first attempt."""

from dataclasses import dataclass

from hone_api.contract.report import TasksResult
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.resolved import Resolved, StagedTasks
from hone_api.words.states import ConditionType, Reason
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.shared import harness_tasks
from hone_operator.desired.staging.tasks import tasks
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome_builder import OutcomeBuilder
from hone_operator.reconcile.staging.staging import Staging, StoreState, stage


@dataclass(frozen=True)
class EvaluationTasks:
    """Where they are, or why the job cannot continue."""

    ready: bool = False
    staged: StagedTasks | None = None
    """None: the job has no evaluation.harness, or they are not ready."""
    failure: Cause | None = None
    """Final: another attempt cannot help."""


def evaluation_tasks(
    builder: OutcomeBuilder, spec: FineTuneJobSpec, store: StoreState, pinned: Resolved | None, platform: Platform
) -> EvaluationTasks:
    """Set condition TasksReady if there is something to stage, and request a Job if one is due.

    Args:
        pinned: the inputs of the first attempt; from then on nothing else matters.
    """
    harness, shared = spec.evaluation.harness, harness_tasks(builder.body["spec"], platform)
    if harness is None or shared is None:
        return EvaluationTasks(ready=True)
    if pinned:
        return _ready(builder, pinned.evaluation_tasks)
    work = Staging(
        shared,
        ConditionType.TASKS_READY,
        TasksResult,
        f"The data sets of {', '.join(harness.tasks)} are",
        lambda claim, number: tasks(claim, shared, spec, harness, number, platform),
    )
    stored = stage(builder, work, store, platform)
    if isinstance(stored, Cause):
        return EvaluationTasks(failure=stored)
    if stored is None:
        return EvaluationTasks()
    uri = f"pvc://{platform.store.claim_name}/{stored.path.strip('/')}"
    staged = StagedTasks(uri=uri, digest=stored.digest, version=stored.version, data_sets=stored.data_sets)
    return _ready(builder, staged)


def _ready(builder: OutcomeBuilder, staged: StagedTasks | None) -> EvaluationTasks:
    words = f"{', '.join(staged.data_sets)}, by lm-eval {staged.version}" if staged else ""
    builder.conditions.set(ConditionType.TASKS_READY, True, Reason.AVAILABLE, words)
    return EvaluationTasks(ready=True, staged=staged)
