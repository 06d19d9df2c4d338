"""Plans of the Jobs that fetch what runs share into the store, and remove what nothing needs any more."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hone_api.base.meta import Digest, KnownUri, Name
from hone_api.blocks.evaluation import Harness
from hone_api.kinds.finetunejob import ModelRef
from hone_api.kinds.resolved import EncodingKey
from hone_api.plan.fields import ExportFolder, Limits, PlanFields
from hone_api.plan.plan_paths import PlanPath
from hone_api.plan.training import TrainingPlan


class SweepPlan(PlanFields):
    """Removes from `store` content without references, reports of deleted Datasets, work folders of deleted runs,
    incomplete exports, and models that are deleted with their ModelVersion; measures the rest."""

    kind: Literal["Sweep"] = "Sweep"
    store: PlanPath = Field(description="Path of the store.")
    remove: list[Digest] = Field(description="Digests that no Dataset, run or model refers to.")
    encoded: list[EncodingKey] = Field(
        default_factory=list, description="Folders of encoded/ that no run refers to any more."
    )
    datasets: list[Name] | None = Field(
        default=None, description="Names of all Datasets: reports of others go; None: all reports stay."
    )
    jobs: list[str] | None = Field(
        default=None,
        description="uids of all FineTuneJobs, and of others whose pods still run: runs of others go; None: all stay.",
    )
    checkpoints: list[str] = Field(
        default_factory=list, description="uids of FineTuneJobs whose checkpoints nobody needs any more."
    )
    models: list[ExportFolder] = Field(
        default_factory=list,
        description="Folders below models/ whose ModelVersion had deletionPolicy Delete and is gone.",
    )
    exports: list[str] | None = Field(
        default=None,
        description="What stays below models/: <run>/<attempt> of every model that an object names, and <run> of every "
        "run that is not over. Exports of others go where they were never completed; None: all exports stay.",
    )
    making: list[str] | None = Field(
        default=None,
        description="Names of the Jobs that may still write a folder of incoming/: others go; None: all stay.",
    )
    as_of: float = Field(description="When that was so, seconds since 1970 in UTC.")
    grace_seconds: int = Field(
        default=3600, ge=0, description="What was made or found again later than so long before as_of stays."
    )


class FetchPlan(PlanFields):
    """Base model -> `store`/base-models/<owner>--<name>/<commit>, pinned."""

    kind: Literal["Fetch"] = "Fetch"
    model: ModelRef
    secret_path: PlanPath | None = Field(default=None, description="Folder where model.secretName is mounted.")
    store: PlanPath = Field(description="Path of the store.")
    rows: TrainingPlan | None = Field(
        default=None,
        description="What a run trains on: before the weights are fetched, a row of each split is encoded.",
    )
    limits: Limits = Field(default_factory=Limits)


class LookupPlan(PlanFields):
    """Asks the hub which commit a branch or tag names."""

    kind: Literal["Lookup"] = "Lookup"
    uri: KnownUri = Field(description="hf://owner/name[@revision].")
    secret_path: PlanPath | None = Field(default=None, description="Folder where model.secretName is mounted.")
    limits: Limits = Field(default_factory=Limits)


class TasksPlan(PlanFields):
    """Data sets of lm-evaluation-harness tasks -> `store`/evaluation-tasks/<digest>, pinned."""

    kind: Literal["Tasks"] = "Tasks"
    harness: Harness
    secret_path: PlanPath | None = Field(
        default=None, description="Folder where model.secretName is mounted, for data sets that are gated."
    )
    store: PlanPath = Field(description="Path of the store.")
    limits: Limits = Field(default_factory=Limits)
