"""ModelVersion: one finished, evaluated model with its complete lineage. It survives its job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from hone_api.base.meta import (
    CONDITIONS,
    LIST_TYPE,
    MAX_COUNT,
    OBSERVED_GENERATION,
    PRESERVED,
    ApiModel,
    Column,
    Condition,
    DeletionPolicy,
    Digest,
    Kind,
    KnownUri,
    Name,
    ShortText,
    Text,
    Timestamp,
)
from hone_api.base.pod_image import DownloadPod
from hone_api.base.rule import Immutable, Rule
from hone_api.blocks.delivery import ONE_DELIVERY, ArtifactForm, Deliveries
from hone_api.blocks.entries import RETRIED, EntryStatus, PlaceStatus
from hone_api.blocks.evaluation import MAX_EVALUATIONS, VersionEvaluations
from hone_api.blocks.shape import ModelShape
from hone_api.blocks.tracking import TrackedRun
from hone_api.kinds.plan_record import PlanRecord, StageSettings, values_of
from hone_api.words.states import ApprovalState, DeliveryState, MeasurementState

MAX_VERSION = 1_000_000
Purpose = Literal["HeldOut", "Retention", "Harness"]
"""What a number is for."""


class Artifact(ApiModel):
    """One form of the model."""

    format: ArtifactForm = Field(
        description="Adapter: LoRA or QLoRA, for its base; Merged: the base with the adapter merged into it; Full: all "
        "weights were trained; GGUF: the merged or full model in one file for llama.cpp."
    )
    uri: KnownUri = Field(description="Folder of the files, e.g. pvc://hone-store/models/…/adapter.")
    digest: Digest = Field(description="SHA-256 of the folder's manifest.json.")
    size_bytes: int = Field(ge=0, le=MAX_COUNT, description="Sum of the file sizes, bytes.")


class BaseModelLineage(ApiModel):
    """The model that this one was made from."""

    uri: KnownUri = Field(description="URI as named in the job.")
    commit: ShortText | None = Field(default=None, description="Commit of the hub, or digest of its manifest.")
    model_version: Name | None = Field(default=None, description="Parent ModelVersion, for a chain stage.")
    location: KnownUri | None = Field(
        default=None, description="Folder of its weights when the run read them, e.g. pvc://hone-store/base-models/…"
    )
    digest: Digest | None = Field(
        default=None,
        description="SHA-256 of manifest.json of that folder, with which servers compare its files; absent for a "
        "folder of a user's own volume, which has no manifest.",
    )
    shape: ModelShape | None = Field(default=None, description="Sizes of the base model, for memory estimates.")
    license: ShortText | None = Field(default=None, description="Licence that its card names.")


class DatasetLineage(ApiModel):
    """Rows that were used."""

    name: Name = Field(description="Name of the Dataset.")
    split: ShortText = Field(description="Split used.")
    digest: Digest = Field(description="Digest of the materialized content.")
    rows: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Rows per epoch, including repetitions.")
    tokens: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Tokens per epoch.")
    license: ShortText | None = Field(default=None, description="Licence that its source names.")


class JobLineage(ApiModel):
    """The job that made this model."""

    name: Name = Field(description="Name of the FineTuneJob.")
    uid: ShortText = Field(description="Uid of the FineTuneJob.")
    generation: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Generation of the FineTuneJob.")
    submitted_by: ShortText | None = Field(default=None, description="User who submitted it, from spec.submittedBy.")
    spec_digest: Digest | None = Field(
        default=None,
        description="SHA-256 of what the spec says about the result, not where it runs; recognises a restored job.",
    )


class ImportLineage(ApiModel):
    """Where a model came from that was not made here."""

    uri: KnownUri = Field(description="uri of the entry of spec.imports of the Model.")
    key: ShortText = Field(description="Digest of what that entry asked for.")
    commit: ShortText | None = Field(default=None, description="Commit of the hub, or digest of the image.")
    digest: Digest = Field(
        description="SHA-256 of the list of its files there: path, size and SHA-256 of each, as in manifest.json."
    )
    license: ShortText | None = Field(default=None, description="Licence that its own card names.")
    submitted_by: ShortText | None = Field(default=None, description="User who added the entry, from its submittedBy.")


class Stage(ApiModel):
    """One run, with everything needed to repeat it; or one import."""

    rules = (
        Rule(
            "has(self.job) != has(self.imported)",
            "a model was made by a job or imported: set exactly one of job and imported",
        ),
    )

    base_model: BaseModelLineage = Field(description="The model that this one was made from.")
    datasets: Annotated[list[DatasetLineage], Field(max_length=32)] = Field(description="Rows that were used.")
    job: JobLineage | None = Field(default=None, description="The job that made this model; absent for an import.")
    imported: ImportLineage | None = Field(
        default=None, description="Where the model came from; absent for one that a job made."
    )
    method: ShortText = Field(description="SFT, DPO, …; Import for a model that no job made.")
    settings: StageSettings = Field(default_factory=StageSettings, description="What people look for in the plan.")
    plan: PlanRecord | None = Field(
        default=None, description="The resolved training plan; absent for a record from before this field."
    )
    hyper_parameters: dict[str, Any] | None = Field(
        default=None,
        description="The plan of a record from before plan; it is read, and not written.",
        json_schema_extra={PRESERVED: True},
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=2_147_483_647,
        description="Seed of data order and initialisation; absent for an import.",
    )
    image: ShortText | None = Field(default=None, description="Trainer image.")
    attempts: int | None = Field(default=None, ge=1, le=MAX_COUNT, description="Number of attempts.")
    attempt_nodes: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(max_length=128)] | None = Field(
        default=None,
        description="Nodes of each attempt, oldest first, of a job with resources.minNodes; of more than 128 attempts, "
        "the newest 128. attempts counts all. settings.nodes are those of the attempt that finished.",
        json_schema_extra={LIST_TYPE: "atomic"},
    )
    steps: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Optimiser steps of the exported weights.")
    finished_at: Timestamp | None = Field(default=None, description="When training ended.")

    @property
    def values(self) -> Mapping[str, Any]:
        """The plan's values, by the names in its document; empty if the record does not have them."""
        fields = {"settings", "plan", "hyper_parameters"}
        return values_of(self.model_dump(mode="json", by_alias=True, exclude_none=True, include=fields))


class Ancestor(Stage):
    """An earlier stage of the chain, copied from its ModelVersion."""

    model_version: Name = Field(description="Name of the ModelVersion of that stage.")
    digest: Digest = Field(description="SHA-256 of manifest.json of the artifact that the next stage started from.")


class Lineage(Stage):
    """Everything needed to make this model again; later edits and deletions cannot change this copy."""

    tracking: TrackedRun | None = Field(
        default=None, description="The run in the tracker that spec.tracking of the job names."
    )
    ancestors: Annotated[list[Ancestor], Field(max_length=16)] = Field(
        default_factory=list, description="Earlier stages of the chain, oldest first; empty for a run on a base model."
    )


PARITY = "parity_"
"""Prefix of numbers that compare with the recorded answers of the rows, before the name of the reward."""


class EvaluationNumber(ApiModel):
    """One metric of the base and of the tuned model, on the same held-out rows."""

    name: ShortText = Field(description="Metric, e.g. loss (nats per token).")
    dataset: ShortText | None = Field(default=None, description="Dataset and split; for Harness, the task.")
    base: ShortText | None = Field(default=None, description="Value of the base model, decimal string.")
    tuned: ShortText = Field(description="Value of the tuned model, decimal string.")
    low: ShortText | None = Field(
        default=None, description="Lower end of the 95 % interval of tuned (bootstrap over rows)."
    )
    high: ShortText | None = Field(default=None, description="Upper end of the same.")
    change_low: ShortText | None = Field(
        default=None, description="Lower end of the 95 % interval of tuned minus base, paired by row."
    )
    change_high: ShortText | None = Field(default=None, description="Upper end of the same.")
    against: ShortText | None = Field(
        default=None,
        description="Value of the ModelVersion in evaluation.against, on the same rows; of parity_<reward>: of their "
        "recorded answers.",
    )
    against_low: ShortText | None = Field(
        default=None, description="Lower end of the 95 % interval of tuned minus against, paired by row."
    )
    against_high: ShortText | None = Field(default=None, description="Upper end of the same.")
    purpose: Purpose = Field(
        default="HeldOut",
        description="HeldOut: what should be learned; Retention: what should be retained; Harness: a task of "
        "lm-evaluation-harness.",
    )
    rows: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Rows evaluated.")
    tokens: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Tokens that were evaluated.")


Ending = Literal["Repeats", "Cut"]


class AnsweredPrompt(ApiModel):
    """One unseen prompt, answered by both models."""

    prompt: Text = Field(description="Prompt.")
    reference: Text | None = Field(default=None, description="Answer of the held-out row.")
    base: Text | None = Field(default=None, description="Answer of the base model.")
    tuned: Text = Field(description="Answer of the tuned model.")
    base_ending: Ending | None = Field(
        default=None,
        description="How the base model's answer ended, if not with an end-of-turn token. Repeats: it repeats the "
        "same tokens to the end; Cut: it reached the token limit.",
    )
    tuned_ending: Ending | None = Field(default=None, description="The same for the tuned model's answer.")


class ModelEvaluation(ApiModel):
    """What was gained, measured before and after on the same rows."""

    numbers: Annotated[list[EvaluationNumber], Field(max_length=64)] = Field(
        default_factory=list, description="Metrics of base and tuned model."
    )
    against: ShortText | None = Field(
        default=None,
        description="ModelVersion that evaluation.against of the job meant; empty: its alias pointed to none. Absent: "
        "the job did not ask for it.",
    )
    samples: Annotated[list[AnsweredPrompt], Field(max_length=4)] = Field(
        default_factory=list,
        description="Unseen prompts answered by both; more are in the artifact's report.",
    )


class Approval(ApiModel):
    """A person's decision."""

    state: ApprovalState = Field(default=ApprovalState.CANDIDATE, description="Default Candidate.")
    by: ShortText | None = Field(
        default=None,
        description="Who decided, as `kubectl auth whoami` prints it: the API server compares it with the user who "
        "writes. For a rejection by a gate: the field that failed.",
    )
    comment: Text | None = Field(default=None, description="Why.")


WAY_OUT = "a ModelVersion is a record; only approval, deliveries, evaluations and deletionPolicy can change"


class ModelVersionSpec(ApiModel):
    """The record of a model; immutable except for approval, deliveries, evaluations and deletionPolicy."""

    rules = (ONE_DELIVERY,)
    immutable = Immutable("spec", ("modelName", "version", "artifacts", "evaluation", "lineage"), WAY_OUT)
    model_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=50)] = Field(
        description="Name of the model."
    )
    version: int = Field(ge=1, le=MAX_VERSION, description="Version number; never reused within a namespace.")
    artifacts: Annotated[list[Artifact], Field(min_length=1, max_length=8)] = Field(description="Forms of the model.")
    lineage: Lineage = Field(description="Everything needed to make this model again.")
    evaluation: ModelEvaluation = Field(default_factory=ModelEvaluation, description="Base against tuned model.")
    approval: Approval = Field(default_factory=Approval, description="A person's decision.")
    deliveries: Deliveries | None = Field(
        default=None,
        description="Where this version is copied to; default: nowhere. Initially the job's output.push. A new entry "
        "is delivered at once; a copy that was delivered stays when its entry is removed.",
    )
    evaluations: VersionEvaluations | None = Field(
        default=None,
        description="Rows on which this version is measured again, by a Job on CPUs. status.evaluations has the "
        "numbers, and gates of the Model read the newest of each metric and dataset. Default: the numbers of "
        "evaluation are all there are.",
    )
    deletion_policy: DeletionPolicy = Field(
        default="Retain",
        description="What happens to the files when this object is deleted, by a person or by spec.retention of the "
        "Model. Retain keeps them forever. Delete removes them from the namespace's store some time later, if no other "
        "object and no running pod names their folder. Initially output.deletionPolicy of the job, or deletionPolicy "
        "of the import.",
    )


class DeliveryProgress(ApiModel):
    """How far a copy is, as its pod last reported it."""

    arrived_bytes: int = Field(ge=0, le=MAX_COUNT, description="Bytes sent by this attempt, or found there by it.")
    total_bytes: int = Field(ge=0, le=MAX_COUNT, description="Bytes of the files.")
    percent: int = Field(ge=0, le=100, description="Arrived bytes in percent of totalBytes.")
    bytes_per_second: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Rate of the last 30 seconds.")
    eta: ShortText | None = Field(default=None, description="Estimated time to the last byte, e.g. 8m.")
    summary: ShortText = Field(description="For people, e.g. 412.0 of 988.3 MiB, 41%, 12.1 MiB/s, 48s left.")
    last_updated_time: Timestamp | None = Field(default=None, description="When the pod last reported.")


class DeliveryStatus(PlaceStatus):
    """One entry of spec.deliveries."""

    key: ShortText = Field(description="Digest of what the entry asks for; another one is another delivery.")
    state: DeliveryState = Field(
        description="Pending: not begun, or the next attempt waits; Delivering: a Job copies it; Delivered: every byte "
        "arrived; Failed: no further attempt before the entry or the annotation hone.dev/retry changes."
    )
    progress: DeliveryProgress | None = Field(
        default=None, description="How far the copy is, while state is Delivering; at most every 15 seconds."
    )
    location: KnownUri | None = Field(
        default=None, description="Where it is, e.g. s3://bucket/path/support-bot-v3 or oci://registry/name@sha256:…"
    )
    digest: Digest | None = Field(
        default=None, description="Digest of the image's manifest for oci://, otherwise of the folder's manifest.json."
    )
    size_bytes: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Bytes of the files.")
    uploaded_bytes: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Bytes that the last attempt sent; the rest was there already."
    )
    delivered_at: Timestamp | None = Field(default=None, description="When the last byte had been verified.")


MAX_MEASURED = 8
"""Numbers of one entry of spec.evaluations: its Job's termination message has room for them."""


class Measurement(EntryStatus):
    """One entry of spec.evaluations, and the numbers that were measured last, also while others are measured."""

    dataset: Name = Field(description="Dataset of the entry.")
    split: ShortText = Field(description="Its split.")
    key: ShortText = Field(
        description="Digest of what is to be measured: the entry, the content of the Dataset, the other version."
    )
    state: MeasurementState = Field(
        description="Pending: not begun, or the next attempt waits; Measuring: a Job measures; Measured: the numbers "
        "are those of the present rows; Failed: no further attempt before the entry, the rows, the other version or "
        "the annotation hone.dev/retry changes."
    )
    digest: Digest | None = Field(default=None, description="Content of the Dataset that was measured.")
    against: ShortText | None = Field(
        default=None,
        description="ModelVersion that was compared with; empty: the alias pointed to none. Absent: with the base "
        "alone.",
    )
    numbers: Annotated[list[EvaluationNumber], Field(max_length=MAX_MEASURED)] | None = Field(
        default=None, description="Metrics of base and tuned model."
    )
    evaluated_at: Timestamp | None = Field(default=None, description="When they were measured.")

    @property
    def title(self) -> str:
        return f"{self.dataset}/{self.split}"


class SignatureStatus(ApiModel):
    """The signature over all files of each artifact, in its model.sig."""

    key: ShortText | None = Field(
        default=None,
        description="SHA-256 of the PEM of the public key, as model.sig names it; absent until it is signed.",
    )
    signed_at: Timestamp | None = Field(default=None, description="When the last artifact was signed.")
    tries: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Number of signing Jobs so far.")


class ModelVersionStatus(ApiModel):
    """Current state; written only by the operator."""

    observed_generation: int | None = OBSERVED_GENERATION
    conditions: list[Condition] = CONDITIONS
    retried: ShortText | None = RETRIED
    base: ShortText | None = Field(default=None, description="Base model, for display.")
    eval_loss: ShortText | None = Field(default=None, description="Held-out loss, for display.")
    base_eval_loss: ShortText | None = Field(default=None, description="Held-out loss of the base model, for display.")
    size_bytes: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Bytes of all artifacts in the namespace's store."
    )
    aliases: ShortText | None = Field(
        default=None, description="Aliases that point to this version, separated by commas, for display."
    )
    verified_at: Timestamp | None = Field(default=None, description="When every file last matched its manifest.")
    tries: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Number of verifying Jobs so far.")
    last_try_time: Timestamp | None = Field(default=None, description="When the last verifying Job ended.")
    signature: SignatureStatus | None = Field(
        default=None, description="Who signed it; with signing.publicKeys of the chart."
    )
    deliveries: Annotated[list[DeliveryStatus], Field(max_length=8)] = Field(
        default_factory=list, description="State of each entry of spec.deliveries, and of the Model's that apply to it."
    )
    evaluations: Annotated[list[Measurement], Field(max_length=MAX_EVALUATIONS)] | None = Field(
        default=None, description="State of each entry of spec.evaluations, and its numbers."
    )
    download_pod: DownloadPod | None = Field(
        default=None,
        description="Settings of the pod from which `hone download` reads the files, and of servers of the model.",
    )


MODEL_VERSION = Kind(
    kind="ModelVersion",
    plural="modelversions",
    singular="modelversion",
    short_name="mv",
    spec=ModelVersionSpec,
    status=ModelVersionStatus,
    columns=(
        Column("Model", ".spec.modelName"),
        Column("Version", ".spec.version", type="integer"),
        Column("Alias", ".status.aliases"),
        Column("Approval", ".spec.approval.state"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Servable", '.status.conditions[?(@.type=="Servable")].status'),
        Column("Delivered", '.status.conditions[?(@.type=="Delivered")].status'),
        Column("Base-Loss", ".status.baseEvalLoss"),
        Column("Eval-Loss", ".status.evalLoss"),
        Column("Age", ".metadata.creationTimestamp", type="date"),
        Column("Base", ".status.base", priority=1),
        Column("Signed", '.status.conditions[?(@.type=="Signed")].status', priority=1),
        Column("Bytes", ".status.sizeBytes", type="integer", priority=1),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
    ),
    selectable=(".spec.modelName", ".spec.approval.state"),
    rules=(
        Rule(
            "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
            "metadata.name must be at most 63 characters without a dot, as FineTuneJobs name it, e.g. math-tutor-v1",
        ),
    ),
)
