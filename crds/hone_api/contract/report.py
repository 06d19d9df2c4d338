"""What a pod of the trainer image reports: a `ProgressReport` by POST during the run, a `Result` at its end.

The result travels in the termination message: `hone_api.contract.termination`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from hone_api.base.meta import MAX_COUNT, ApiModel, Digest, ShortText, Storable
from hone_api.blocks.shape import ModelShape
from hone_api.blocks.tracking import RegisteredAlias, RegisteredVersion, RunId, TrackedRun
from hone_api.dataset.curation import CurationStep
from hone_api.dataset.dataset_status import (
    Changes,
    Croissant,
    DatasetUse,
    LanguageRows,
    NotReadFiles,
    RowErrorCount,
    SharedRows,
    SplitRows,
    TokenStatistics,
)
from hone_api.dataset.synthesis import SyntheticRows
from hone_api.kinds.modelversion import MAX_MEASURED, AnsweredPrompt, Artifact, EvaluationNumber
from hone_api.kinds.resolved import MAX_TASK_DATA_SETS, TaskDataSet
from hone_api.words.phases import PhaseSeconds
from hone_api.words.progress_numbers import MOST_METRICS, ReportedNumbers, description
from hone_api.words.states import Reason

MAX_REPORT_BYTES = 64 * 1024
AUDIENCE = "progress.hone.dev"
"""Audience of the projected service-account token that authenticates reports."""
URL_ENV = "KUBEFLOW_TRAINER_SERVER_URL"
TOKEN_ENV = "KUBEFLOW_TRAINER_SERVER_TOKEN"
CA_ENV = "KUBEFLOW_TRAINER_SERVER_CA_CERT"

DELIVERING = "Delivering"
"""Stage of a pod that delivers a model; its steps are bytes."""
BYTES_PER_SECOND = "bytes_per_second"
"""Metric that it reports."""

Short = Annotated[str, StringConstraints(max_length=64)]
MetricName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Address = Annotated[str, StringConstraints(pattern=r"^[!-~]+$", max_length=253)]
"""A path or revision that our own code creates: it is never cut, so it must be short."""


def _first(count: int) -> AfterValidator:
    """At most as many entries as the object allows to which the operator copies them."""
    return AfterValidator(lambda entries: entries[:count])


class Metric(ApiModel):
    """Kubeflow Trainer's metric: both are strings, so that 'nan' survives JSON."""

    name: Short
    value: Short


class TrainerStatus(ApiModel):
    """Kubeflow Trainer's progress payload (KEP-2779), as transformers' built-in callback sends it."""

    progress_percentage: int | None = Field(default=None, ge=0, le=100)
    estimated_remaining_seconds: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    metrics: Annotated[list[Metric], Field(max_length=256)] = Field(default_factory=list)
    last_updated_time: Short | None = None


class HoneStatus(ReportedNumbers[Short]):
    """What our own trainer reports beyond Kubeflow's payload, whose metrics it leaves empty.

    Numbers are strings: 'nan' survives JSON.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")
    stage: Short
    step: int = Field(ge=0, le=MAX_COUNT, description=description("step"))  # no report is without it
    start_step: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Step that these pods went on from, once known."
    )
    metrics: Annotated[dict[MetricName, Short], Field(max_length=MOST_METRICS)] = Field(
        default_factory=dict, description="The method's own metrics by name, e.g. reward_accuracy."
    )
    phases: PhaseSeconds = Field(default_factory=dict, description="Where the time of the attempt went so far.")
    tracking_run: RunId | None = Field(default=None, description="Id of the run in the tracker, once there is one.")


class ProgressReport(ApiModel):
    """Body of the POST. Unknown fields are dropped, because other trainers may send more."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")
    trainer_status: TrainerStatus
    hone: HoneStatus | None = None


class TrainingResult(ApiModel):
    """A finished run."""

    kind: Literal["Training"] = "Training"
    artifacts: Annotated[list[Artifact], Field(max_length=4)] = Field(
        description="uri is the folder's path below the output folder, e.g. adapter."
    )
    numbers: Annotated[list[EvaluationNumber], _first(64)] = Field(default_factory=list)
    samples: Annotated[list[AnsweredPrompt], _first(4)] = Field(default_factory=list)
    steps: int = Field(ge=0, le=MAX_COUNT)
    stopped_early: bool = False
    reason: Short = Field(default=str(Reason.COMPLETED), description="Completed, EarlyStopped.")
    start_step: int = Field(default=0, ge=0, le=MAX_COUNT, description="Step that the last attempt resumed from.")
    finished_attempt: int | None = Field(
        default=None,
        ge=1,
        le=MAX_COUNT,
        description="The earlier attempt that finished the run, if the one that reports trained nothing.",
    )
    peak_memory_bytes: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    estimated_memory_bytes: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Of one pod, as estimated before."
    )
    advice: Annotated[list[Annotated[str, StringConstraints(max_length=600), Storable]], _first(16)] = Field(
        default_factory=list, description="What looks wrong, but does not end the run."
    )
    rejected: Annotated[str, StringConstraints(max_length=600), Storable] | None = Field(
        default=None, description="Why evaluation.retention lets this model not pass."
    )
    train_loss: Short | None = None
    tokens_per_second: Short | None = None
    resolved: dict[str, Annotated[int, Field(ge=-MAX_COUNT, le=MAX_COUNT)] | str] = Field(
        default_factory=dict, description="Values the trainer chose."
    )
    datasets: Annotated[list[DatasetUse], _first(16)] = Field(default_factory=list)
    tracking: TrackedRun | None = Field(default=None, description="The run in the tracker, where there is one.")


class DatasetResult(ApiModel):
    """A materialized Dataset; also sent with a data failure."""

    kind: Literal["Materialize"] = "Materialize"
    digest: Digest | None = None
    path: Address | None = Field(default=None, description="Folder below the store, e.g. datasets/<hex>.")
    split_settings: ShortText | None = Field(
        default=None, description="Hash of the settings that divided the rows, for the next plan."
    )
    size_bytes: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Bytes of the folder.")
    revision: Address | None = None
    format_detected: ShortText | None = None
    rows: int = Field(default=0, ge=0, le=MAX_COUNT)
    splits: Annotated[list[SplitRows], Field(max_length=8)] = Field(default_factory=list)
    rejected: int = Field(default=0, ge=0, le=MAX_COUNT)
    errors: Annotated[list[RowErrorCount], _first(32)] = Field(default_factory=list)
    not_read: Annotated[list[NotReadFiles], _first(16)] = Field(default_factory=list)
    duplicates: int = Field(default=0, ge=0, le=MAX_COUNT)
    curation: Annotated[list[CurationStep], _first(16)] = Field(default_factory=list)
    shared_rows: Annotated[list[SharedRows], _first(16)] = Field(default_factory=list)
    tokens: TokenStatistics | None = None
    mixture: Annotated[list[DatasetUse], _first(48)] = Field(default_factory=list)
    changes: Changes | None = None
    languages: Annotated[list[LanguageRows], _first(8)] = Field(default_factory=list)
    summary: Annotated[str, StringConstraints(max_length=2000), Storable] | None = None
    advice: Annotated[list[Annotated[str, StringConstraints(max_length=600), Storable]], _first(16)] = Field(
        default_factory=list
    )
    report: Address | None = Field(default=None, description="Path of report.html below the store.")
    synthetic: SyntheticRows | None = Field(default=None, description="Without a digest: rows wait for review.")
    croissant: Croissant | None = None
    source_version: ShortText | None = Field(default=None, description="Mark of what was read, for the next plan.")
    unchanged: bool = Field(default=False, description="The source is the one that the plan knows: nothing was read.")


class FetchResult(ApiModel):
    """A staged base model."""

    kind: Literal["Fetch"] = "Fetch"
    path: Address = Field(description="Folder below the store.")
    commit: Address | None = None
    digest: Digest | None = Field(
        default=None, description="SHA-256 of its manifest.json; a trainer of an earlier version gives none."
    )
    size_bytes: int = Field(default=0, ge=0, le=MAX_COUNT)
    shape: ModelShape | None = Field(default=None, description="Sizes of the model, for the estimate of memory.")
    license: ShortText | None = Field(default=None, description="Licence that its card names.")


class LookupResult(ApiModel):
    """What a branch or tag of the hub names."""

    kind: Literal["Lookup"] = "Lookup"
    commit: Address


class TasksResult(ApiModel):
    """Staged data sets of lm-evaluation-harness tasks."""

    kind: Literal["Tasks"] = "Tasks"
    path: Address = Field(description="Folder below the store.")
    digest: Digest = Field(description="SHA-256 of its manifest.json.")
    version: Short = Field(description="Version of lm-evaluation-harness.")
    data_sets: Annotated[list[TaskDataSet], Field(max_length=MAX_TASK_DATA_SETS)] = Field(
        description="Repositories, as owner/name@commit."
    )
    size_bytes: int = Field(default=0, ge=0, le=MAX_COUNT)


class EncodeResult(ApiModel):
    """Every split of a training plan as tokens."""

    kind: Literal["Encode"] = "Encode"
    digest: Digest = Field(
        description="Of all splits together (`hone_api.contract.encoding.digest`), for encodedDigest of the plan."
    )
    splits: int = Field(ge=0, le=MAX_COUNT, description="Folders, one for each split.")
    reused: int = Field(default=0, ge=0, le=MAX_COUNT, description="Folders of them that were there already.")
    rows: int = Field(ge=0, le=MAX_COUNT, description="Examples of all splits.")
    tokens: int = Field(ge=0, le=MAX_COUNT)
    size_bytes: int = Field(default=0, ge=0, le=MAX_COUNT, description="Bytes of all folders.")
    tokens_per_second: Short | None = Field(default=None, description="Of what was encoded, not reused.")
    summary: Annotated[list[Annotated[str, StringConstraints(max_length=600), Storable]], _first(16)] = Field(
        default_factory=list,
        description="What became of each split's rows: dropped, truncated, refused; no text of a row.",
    )
    advice: Annotated[list[Annotated[str, StringConstraints(max_length=600), Storable]], _first(16)] = Field(
        default_factory=list, description="What looks wrong, but does not end the run."
    )


MAX_UNCLAIMED = 8
"""Number of folders in a SweepResult, which must fit in a termination message."""
StoredBytes = Annotated[dict[Short, Annotated[int, Field(ge=0, le=MAX_COUNT)]], Field(max_length=16)]
"""Bytes by folder of a store."""


class SweepResult(ApiModel):
    """What nothing referred to is gone."""

    kind: Literal["Sweep"] = "Sweep"
    removed: int = Field(ge=0, le=MAX_COUNT, description="Folders removed.")
    size_bytes: int = Field(ge=0, le=MAX_COUNT, description="Their size.")
    stored: StoredBytes = Field(default_factory=dict, description="Bytes that are left, by folder of the store.")
    unclaimed: Annotated[list[Address], _first(MAX_UNCLAIMED)] = Field(
        default_factory=list,
        description="Folders below models/ that no object names and that stay: models of deleted ModelVersions with "
        "deletionPolicy Retain, and what was not put there by a run.",
    )
    unclaimed_count: int = Field(default=0, ge=0, le=MAX_COUNT, description="How many there are.")


class VerifyResult(ApiModel):
    """Every file matched."""

    kind: Literal["Verify"] = "Verify"
    files: int = Field(ge=0, le=MAX_COUNT)
    size_bytes: int = Field(ge=0, le=MAX_COUNT)


class SignResult(ApiModel):
    """Every artifact has a signature that counts."""

    kind: Literal["Sign"] = "Sign"
    key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="SHA-256 of the public key's PEM, as model.sig names it."
    )


class DeliverResult(ApiModel):
    """Every byte arrived."""

    kind: Literal["Deliver"] = "Deliver"
    location: Annotated[str, StringConstraints(max_length=1024)] = Field(description="URI of what was delivered.")
    digest: Digest
    size_bytes: int = Field(ge=0, le=MAX_COUNT, description="Of the files.")
    uploaded_bytes: int = Field(ge=0, le=MAX_COUNT, description="Of them, those that were not there yet.")


MAX_AT_ONCE = 16
"""New versions, aliases, and removed aliases in a RegisterResult, each: it must fit in a termination message."""


class RegisterResult(ApiModel):
    """Versions and aliases are in the registry."""

    kind: Literal["Register"] = "Register"
    versions: Annotated[list[RegisteredVersion], Field(max_length=2 * MAX_AT_ONCE)]
    aliases: Annotated[list[RegisteredAlias], Field(max_length=MAX_AT_ONCE)] = Field(default_factory=list)
    removed: Annotated[list[ShortText], Field(max_length=MAX_AT_ONCE)] = Field(default_factory=list)


class ImportedBase(ApiModel):
    """The base of an imported adapter."""

    path: Address | None = Field(default=None, description="Folder below the store; none: on its own volume.")
    commit: Address | None = None
    digest: Digest | None = Field(default=None, description="SHA-256 of manifest.json of a base that was fetched.")
    shape: ModelShape | None = None
    license: ShortText | None = None


class ImportResult(ApiModel):
    """A foreign model is in the store."""

    kind: Literal["Import"] = "Import"
    artifact: Artifact = Field(description="uri is the folder's path below the plan's folder, e.g. adapter.")
    commit: Address | None = Field(default=None, description="Commit of the hub.")
    digest: Digest = Field(description="Of the list of its files at the source.")
    license: ShortText | None = Field(default=None, description="Licence that its own card names.")
    shape: ModelShape | None = Field(default=None, description="Sizes of a whole model.")
    base: ImportedBase | None = Field(default=None, description="Of an adapter.")
    adapter_type: Literal["LoRA", "DoRA"] | None = None
    adapter_rank: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    adapter_targets: Annotated[list[Annotated[str, StringConstraints(max_length=240), Storable]], _first(64)] = Field(
        default_factory=list, description="Last parts of the names of the layers that it changes."
    )
    numbers: Annotated[list[EvaluationNumber], _first(64)] = Field(default_factory=list)
    left_out: Annotated[list[Annotated[str, StringConstraints(max_length=64), Storable]], _first(16)] = Field(
        default_factory=list, description="Files at the source that do not belong to the model."
    )
    left_out_count: int = Field(default=0, ge=0, le=MAX_COUNT, description="How many there are.")


class MeasureResult(ApiModel):
    """A model was measured on rows again."""

    kind: Literal["Measure"] = "Measure"
    numbers: Annotated[list[EvaluationNumber], _first(MAX_MEASURED)]


Result = Annotated[
    TrainingResult
    | DatasetResult
    | FetchResult
    | LookupResult
    | TasksResult
    | EncodeResult
    | VerifyResult
    | SweepResult
    | SignResult
    | DeliverResult
    | RegisterResult
    | ImportResult
    | MeasureResult,
    Field(discriminator="kind"),
]
