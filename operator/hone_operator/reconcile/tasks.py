"""The data sets of evaluation.harness: staged by a Job before any GPU is asked for, pinned by the first attempt."""

from dataclasses import dataclass

from hone_api.finetunejob import FineTuneJobSpec
from hone_api.finetunejob_status import Resolved, StagedTasks
from hone_api.report import TasksResult
from hone_api.states import ConditionType, Reason
from hone_operator.desired.platform import Platform
from hone_operator.desired.shared import harness_tasks
from hone_operator.desired.tasks import tasks
from hone_operator.reconcile.draft import Draft
from hone_operator.reconcile.failures import Cause
from hone_operator.reconcile.staging import Stage, Staging, stage


@dataclass(frozen=True)
class EvaluationTasks:
    """Where they are, or why the job cannot go on."""

    ready: bool = False
    staged: StagedTasks | None = None
    """None: the job has no evaluation.harness, or they are not ready."""
    failure: Cause | None = None
    """Final: trying again cannot help."""


def evaluation_tasks(
    draft: Draft, spec: FineTuneJobSpec, store: Stage, pinned: Resolved | None, platform: Platform
) -> EvaluationTasks:
    """Sets condition TasksReady where there is something to stage, and asks for a Job where one is due.

    Args:
        pinned: what the first attempt began with; from then on nothing else matters.
    """
    harness, shared = spec.evaluation.harness, harness_tasks(draft.body["spec"], platform)
    if harness is None or shared is None:
        return EvaluationTasks(ready=True)
    if pinned:
        return _ready(draft, pinned.evaluation_tasks)
    wanted = Staging(
        shared,
        ConditionType.TASKS_READY,
        TasksResult,
        f"The data sets of {', '.join(harness.tasks)} are",
        lambda claim, number: tasks(claim, shared, spec, harness, number, platform),
    )
    found = stage(draft, wanted, store, platform)
    if isinstance(found, Cause):
        return EvaluationTasks(failure=found)
    if found is None:
        return EvaluationTasks()
    uri = f"pvc://{platform.store_claim}/{found.path.strip('/')}"
    staged = StagedTasks(uri=uri, digest=found.digest, version=found.version, data_sets=found.data_sets)
    return _ready(draft, staged)


def _ready(draft: Draft, staged: StagedTasks | None) -> EvaluationTasks:
    words = f"{', '.join(staged.data_sets)}, by lm-eval {staged.version}" if staged else ""
    draft.conditions.set(ConditionType.TASKS_READY, True, Reason.AVAILABLE, words)
    return EvaluationTasks(ready=True, staged=staged)
