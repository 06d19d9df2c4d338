"""Plans of the Jobs that make a Dataset's rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hone_api.base.meta import Digest, ShortText
from hone_api.dataset.curation import Curation
from hone_api.dataset.dataset import Checks, Format, Splits
from hone_api.dataset.source import Source
from hone_api.dataset.synthesis import Raft, Synthesis
from hone_api.plan.fields import PODS, DatasetInput, ModelInput, NetworkPlan, PlanFields
from hone_api.plan.plan_paths import PlanPath


class RowsPlan(PlanFields):
    """Fields that plans for rows of a Dataset share."""

    name: str = Field(description="Dataset, for messages.")
    store: PlanPath = Field(description="Path of the store.")
    incoming: PlanPath | None = Field(
        default=None,
        description="Folder in which one container leaves rows and outcome, for another one to publish; none: whoever "
        "makes them publishes them.",
    )
    other_datasets: list[DatasetInput] = Field(
        default_factory=list, description="Splits of other Datasets of the namespace, to report which share rows."
    )


class MaterializePlan(NetworkPlan, RowsPlan):
    """Source -> validated splits in `store`/datasets/<digest>."""

    kind: Literal["Materialize"] = "Materialize"
    source: Source
    previous: Digest | None = Field(
        default=None, description="The content before, to report what changed and to keep its rows in their splits."
    )
    previous_split_settings: ShortText | None = Field(
        default=None, description="splitSettings of that content: if they differ, its rows are split again."
    )
    known: str | None = Field(
        default=None, description="sourceVersion of what was read last: the same is not read again."
    )
    source_path: PlanPath | None = Field(
        default=None, description="Folder or file where a pvc:// or configmap:// source is mounted."
    )
    downloads_path: PlanPath | None = Field(
        default=None,
        description="Folder that keeps the checked rows of a large source "
        "until all rows are written: a later attempt reads only what is missing. None: nothing is kept.",
    )
    secret_path: PlanPath | None = Field(
        default=None, description="Folder where source.secretName is mounted, a file a key."
    )
    format: Format = Format.AUTO
    columns: dict[str, str] = Field(default_factory=dict)
    ignore_columns: list[str] = Field(default_factory=list)
    splits: Splits = Field(default_factory=Splits)
    checks: Checks = Field(default_factory=Checks)
    curation: Curation = Field(default_factory=Curation)
    evaluation_sets: list[DatasetInput] = Field(
        default_factory=list, description="The splits of curation.contamination.datasets."
    )
    deduplicate_against: list[DatasetInput] = Field(
        default_factory=list, description="The splits of curation.deduplicateAgainst."
    )
    classifiers: dict[str, ModelInput] = Field(
        default_factory=dict, description="The ModelVersions of curation.scores, by name."
    )
    synthesis: Synthesis | None = None
    synthesis_secret_path: PlanPath | None = Field(
        default=None, description="Folder where synthesis.secretName is mounted, a file a key."
    )
    judge_secret_path: PlanPath | None = Field(
        default=None, description="The same of synthesis.filters.judge.secretName."
    )
    pods: int | None = PODS
    review: str | None = Field(default=None, description="Annotation hone.dev/review of the Dataset, by now.")
    raft: Raft | None = None


class MixPlan(RowsPlan):
    """Mixes materialized Datasets into one, split by split, in `store`/datasets/<digest>."""

    kind: Literal["Mix"] = "Mix"
    parts: Annotated[list[DatasetInput], Field(min_length=1)] = Field(
        description="The splits of the parts; share is the weight, the same in all splits of a part."
    )
    by: Literal["Rows", "Tokens"] = "Rows"
    total: int | None = Field(default=None, ge=1, description="Rows or tokens of the train split.")
    seed: int = Field(default=0, ge=0)
    checks: Checks = Field(default_factory=Checks)
    previous: Digest | None = Field(default=None, description="The content before, to report what changed.")
