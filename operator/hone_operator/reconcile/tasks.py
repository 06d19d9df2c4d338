"""The data sets of evaluation.harness: staged by a Job before any GPU is asked for, pinned by the first attempt."""

from collections.abc import Sequence
from dataclasses import dataclass

from hone_api.finetunejob import FineTuneJobSpec
from hone_api.finetunejob_status import Resolved, StagedTasks
from hone_api.report import TasksResult
from hone_operator.desired.platform import Platform
from hone_operator.desired.tasks import tasks
from hone_operator.reconcile.draft import Draft
from hone_operator.reconcile.failures import Cause
from hone_operator.reconcile.pods import ObservedJob
from hone_operator.reconcile.staging import Staging, stage

CONDITION = "TasksReady"


@dataclass(frozen=True)
class EvaluationTasks:
    """Where they are, or why the job cannot go on."""

    ready: bool = False
    staged: StagedTasks | None = None
    """None: the job has no evaluation.harness, or they are not ready."""
    failure: Cause | None = None
    """Final: trying again cannot help."""


def evaluation_tasks(
    draft: Draft, spec: FineTuneJobSpec, jobs: Sequence[ObservedJob], pinned: Resolved | None, platform: Platform
) -> EvaluationTasks:
    """Sets condition TasksReady where there is something to stage, and asks for a Job where one is due.

    Args:
        jobs: those that stage tasks.
        pinned: what the first attempt began with; from then on nothing else matters.
    """
    harness = spec.evaluation.harness
    if harness is None:
        return EvaluationTasks(ready=True)
    if pinned:
        return _ready(draft, pinned.evaluation_tasks)
    underway = f"The data sets of {', '.join(harness.tasks)} are being staged in the store."
    wanted = Staging(
        CONDITION, TasksResult, underway, lambda number: tasks(draft.body, spec, harness, number, platform)
    )
    found = stage(draft, wanted, jobs, suspend=spec.suspend, platform=platform)
    if isinstance(found, Cause):
        return EvaluationTasks(failure=found)
    if found is None:
        return EvaluationTasks()
    uri = f"pvc://{platform.store_claim}/{found.path.strip('/')}"
    staged = StagedTasks(uri=uri, digest=found.digest, version=found.version, data_sets=found.data_sets)
    return _ready(draft, staged)


def _ready(draft: Draft, staged: StagedTasks | None) -> EvaluationTasks:
    words = f"{', '.join(staged.data_sets)}, by lm-eval {staged.version}" if staged else ""
    draft.conditions.set(CONDITION, True, "Available", words)
    return EvaluationTasks(ready=True, staged=staged)
