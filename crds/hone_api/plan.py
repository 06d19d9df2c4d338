"""The plan: everything that a pod of the trainer image needs, resolved, in one JSON file.

From operator to trainer. It has no Kubernetes in it: the same file works on a laptop.
Relative paths are relative to the plan file's folder.
"""

from __future__ import annotations

import datetime
import ipaddress
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

from hone_api.combinations.rules import RUN_RULES
from hone_api.curation import Curation
from hone_api.dataset import MAX_PODS, Checks, Format, Splits
from hone_api.delivery import Delivery
from hone_api.finetunejob import ModelRef, Output
from hone_api.finetunejob_status import EncodingKey, TaskDataSet
from hone_api.imports import ModelImport
from hone_api.meta import ApiModel, Digest, HttpUrl, KnownUri, Name, Percent, ShortText
from hone_api.methods import METHOD_BLOCKS, Method, PlanBlocks
from hone_api.plan_paths import PlanPath
from hone_api.source import Source
from hone_api.synthesis import Raft, Synthesis
from hone_api.tracking import ExperimentName, RegisteredAlias, RegisteredName, VersionToRegister
from hone_api.training import Adapter, Checkpoints, DeepSpeed, EarlyStopping, Evaluation, Harness, Training

CONTRACT: Literal[1] = 1
PLAN_SHA256_ENV = "HONE_PLAN_SHA256"
"""SHA-256 of the plan's file, hexadecimal, in a pod's environment; absent in a pod of an older operator."""
SECRET_VARIABLES_ENV = "HONE_SECRET_VARIABLES"
"""Names of the variables whose values are keys of Secrets, separated by commas, in a pod's environment."""
SECRETS_ENV = "HONE_SECRETS"
"""Names of the mounted Secrets by folder, as JSON, in a pod's environment, so that a message can name a missing one."""


def _checked_cidr(text: str) -> str:
    ipaddress.ip_network(text)
    return text


ServicePattern = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9*][-a-z0-9*.]*\.[-a-z0-9*]*[a-z0-9*]$", max_length=253)
]
ExportFolder = Annotated[str, StringConstraints(pattern=r"^[-_a-zA-Z0-9]{1,120}/[-_a-zA-Z0-9]{1,120}$")]
"""<run>/<attempt>: the folder below models/ to which an attempt exports."""
Cidr = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"), AfterValidator(_checked_cidr)]
SERVICES: Any = Field(
    default_factory=list,
    description="Services of other namespaces that sources and endpoints may name, as name.namespace; * is any text.",
)
CLUSTER_CIDRS: Any = Field(
    default_factory=list, description="Where Services and pods have their addresses; empty: not known."
)
NAMESPACE: Any = Field(
    default=None, description="Namespace of the pod, whose Services may be named; none: Services of any namespace may."
)


class Limits(ApiModel):
    """Bounds on what a source may be."""

    max_source_bytes: int = Field(default=20 * 2**30, ge=1, description="Largest download, bytes.")
    timeout_seconds: int = Field(
        default=3600,
        ge=1,
        description="Longest download, seconds; from a hub at least as long as its size takes at 4 MiB/s.",
    )
    allow_private_addresses: bool = Field(
        default=False, description="Whether https:// may reach private and loopback addresses."
    )
    services: list[ServicePattern] = SERVICES
    cluster_cidrs: list[Cidr] = CLUSTER_CIDRS


Release = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([-+.][0-9A-Za-z-+.]+)?$", max_length=64)]


class PlanFields(ApiModel):
    """Fields that all plans share."""

    contract: Literal[1] = CONTRACT
    release: Release | None = Field(
        default=None,
        description="Release of Hone that wrote the plan. An older reader leaves out the fields that it does not know "
        "and names them in its log; without a release, or with its own or an older one, it refuses them.",
    )


class WorkerPods(ApiModel):
    """Pods that share the work on rows: a leading one, and others that work for it."""

    pods: int = Field(ge=2, le=MAX_PODS, description="All of them, the leading one included.")
    host: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=253)] = Field(
        description="Name or address of the leading pod."
    )
    port: int = Field(default=8786, ge=1024, le=65535, description="Of its scheduler.")


class DatasetInput(ApiModel):
    """A materialized split."""

    name: str
    split: str = "train"
    path: PlanPath = Field(description="JSON Lines file of normalised rows, of one of the method's formats.")
    digest: Digest = Field(
        description="Digest of the Dataset's content, where the folder of `path` has its name; elsewhere the SHA-256 "
        "of the file. 64 zeros: not checked."
    )
    share: Percent | None = Field(default=None, description="Share of the rows of an epoch; none: all, once.")


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


PublicKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]+-----END PUBLIC KEY-----\n?$", max_length=1024
    ),
]
"""PEM of a key of the elliptic curves P-256, P-384 or P-521."""
TRUSTED: Any = Field(
    default=None,
    description="Public keys. One of them must have signed the folder's model.sig. Without keys, the signature is not "
    "checked.",
)


class ArtifactInput(ApiModel):
    """A folder with a manifest."""

    path: PlanPath
    digest: Digest = Field(description="SHA-256 of manifest.json.")
    trusted: list[PublicKey] | None = TRUSTED


class ModelInput(ApiModel):
    """A ModelVersion: a folder of weights, and an adapter to merge into them where it has no merged form."""

    path: PlanPath = Field(description="Folder of config, tokenizer, safetensors.")
    digest: Digest | None = Field(default=None, description="SHA-256 of its manifest.json; none: not checked.")
    adapter: ArtifactInput | None = None
    trusted: list[PublicKey] | None = TRUSTED


class RowsPlan(PlanFields):
    """Fields that plans for rows of a Dataset share."""

    name: str = Field(description="Dataset, for messages.")
    store: PlanPath = Field(description="Path of the store.")
    incoming: PlanPath | None = Field(
        default=None,
        description="Folder in which one container leaves rows and outcome, for another one to publish; none: whoever "
        "makes them publishes them.",
    )


class MaterializePlan(RowsPlan):
    """Source -> validated splits in `store`/datasets/<digest>."""

    kind: Literal["Materialize"] = "Materialize"
    source: Source
    previous: Digest | None = Field(
        default=None, description="The content before, to tell what changed and to keep its rows in their splits."
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
        description="Folder that keeps the files of an hf:// or s3:// source until rows are made of them: a later "
        "attempt downloads only what is missing. None: none are kept.",
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
    workers: WorkerPods | None = Field(default=None, description="Other pods that check rows; None: there are none.")
    review: str | None = Field(default=None, description="Annotation hone.dev/review of the Dataset, by now.")
    raft: Raft | None = None
    cluster_domain: str = Field(default="cluster.local", description="Names below svc.<this> are Services.")
    namespace: str | None = NAMESPACE
    limits: Limits = Field(default_factory=Limits)


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
    previous: Digest | None = Field(default=None, description="The content before, to tell what changed.")


class FetchPlan(PlanFields):
    """Base model -> `store`/base-models/<owner>--<name>/<commit>, pinned."""

    kind: Literal["Fetch"] = "Fetch"
    model: ModelRef
    secret_path: PlanPath | None = Field(default=None, description="Folder where model.secretName is mounted.")
    store: PlanPath = Field(description="Path of the store.")
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


class TasksInput(ApiModel):
    """Data sets of lm-evaluation-harness tasks, staged."""

    path: PlanPath = Field(description="Folder with tasks.json.")
    digest: Digest = Field(description="SHA-256 of its manifest.json.")
    version: str = Field(description="Version of lm-evaluation-harness that staged them.")
    data_sets: list[TaskDataSet] = Field(description="Their repositories, as owner/name@commit.")


class TrackingInput(ApiModel):
    """The MLflow run that gets the parameters and metrics."""

    uri: HttpUrl = Field(description="The tracking server.")
    experiment: ExperimentName = Field(description="Name of the experiment.")
    secret_path: PlanPath | None = Field(default=None, description="Folder where tracking.secretName is mounted.")
    uid: ShortText = Field(description="Of the FineTuneJob: attempts find the MLflow run by it.")
    tags: dict[str, str] = Field(default_factory=dict, description="Further tags of the MLflow run.")


class _Attempt(PlanFields):
    """What comes first in a training plan."""

    kind: Literal["Training"] = "Training"
    run: str = Field(description="Name of the run, for messages and the model card.")
    attempt: int = Field(default=1, ge=1)
    method: Method = Method.SFT


class TrainingPlan(PlanBlocks, _Attempt):
    """One attempt of one run."""

    rules = RUN_RULES

    reward_paths: dict[str, PlanPath] = Field(
        default_factory=dict,
        description="What rewards bring along, by their name: Python's file, the folder where a judge's secret is "
        "mounted.",
    )
    teacher_secret_path: PlanPath | None = Field(
        default=None, description="Folder where distillation.teacherEndpoint.secretName is mounted, a file a key."
    )
    generation_secret_path: PlanPath | None = Field(default=None, description="The same of grpo.generation.secretName.")
    model_path: PlanPath = Field(description="Folder of the base model: config, tokenizer, safetensors.")
    model_uri: str = Field(description="Where the base came from, for lineage and the model card.")
    model_commit: str | None = None
    model_license: ShortText | None = Field(default=None, description="Licence of the base, for the model card.")
    model_digest: Digest | None = Field(
        default=None, description="SHA-256 of manifest.json in model_path; none: not checked."
    )
    model_trusted: list[PublicKey] | None = TRUSTED
    model_version: Name | None = Field(default=None, description="The ModelVersion that the base model is.")
    model_adapter: ArtifactInput | None = Field(
        default=None, description="Adapter to merge into the base first: the ModelVersion has no merged form."
    )
    models: dict[str, ModelInput] = Field(
        default_factory=dict, description="Further ModelVersions that the method reads, by name."
    )
    datasets: Annotated[list[DatasetInput], Field(min_length=1)]
    evaluation_datasets: list[DatasetInput] = Field(default_factory=list)
    encoded_path: PlanPath | None = Field(
        default=None,
        description="Folder of encoded splits, each in the folder of its key (`hone_api.encoding.key`): `encode` "
        "writes them there, `run` reads them. `run` encodes in workPath what is not there; none: everything.",
    )
    encoded_digest: Digest | None = Field(
        default=None,
        description="What `encode` reported as its digest: a run with other encoded splits fails; none: they are "
        "compared with their own manifests alone.",
    )
    workers: WorkerPods | None = Field(
        default=None, description="Other pods that `encode` shares its work with; None: there are none."
    )
    retention_datasets: list[DatasetInput] = Field(
        default_factory=list, description="The splits of evaluation.retention.datasets."
    )
    harness_tasks: TasksInput | None = Field(default=None, description="What evaluation.harness needs.")
    adapter: Adapter = Field(default_factory=Adapter)
    training: Training = Field(default_factory=Training)
    early_stopping: EarlyStopping | None = None
    checkpoints: Checkpoints = Field(default_factory=Checkpoints)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    deepspeed: DeepSpeed | None = None
    nodes: int = Field(default=1, ge=1)
    max_nodes: int | None = Field(
        default=None,
        ge=1,
        description="Most nodes of an attempt of this run, which continues from checkpoints of other numbers of nodes; "
        "none: all attempts have the same number.",
    )
    processes_per_node: int = Field(default=1, ge=1, description="Ranks per node: GPUs of the node, or 1.")
    memory: int | None = Field(
        default=None,
        ge=1,
        description="Bytes that a rank has: training.microBatchSize is chosen so that it fits; none: not known.",
    )
    template_date: datetime.date | None = Field(
        default=None,
        description="What chat templates print as the date of today, in every attempt; in a cluster the day on which "
        "the FineTuneJob was created, in UTC. None: the day of the first attempt, which the work folder keeps.",
    )
    master_address: str | None = Field(default=None, description="Host name of node 0; needed for several nodes.")
    master_port: int = Field(default=29500, ge=1, le=65535)
    cluster_domain: str = Field(default="cluster.local", description="Names below svc.<this> are Services.")
    allow_private_addresses: bool = Field(
        default=False,
        description="Whether judges, teachers and vLLM outside the cluster may have private and loopback addresses.",
    )
    namespace: str | None = NAMESPACE
    services: list[ServicePattern] = SERVICES
    cluster_cidrs: list[Cidr] = CLUSTER_CIDRS
    output: Output
    work_path: PlanPath = Field(description="Folder of this run for checkpoints, kept over attempts.")
    output_path: PlanPath = Field(description="Folder for the finished artifacts; complete when manifest.json exists.")
    export_folder: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][-a-z0-9]*$", max_length=40)] | None = Field(
        default=None,
        description="Folder in outputPath of this attempt's artifacts, set in a cluster; none: outputPath itself.",
    )
    micro_batch_limit: int | None = Field(
        default=None,
        ge=1,
        description="Most rows of a forward pass, also if training.microBatchSize has more: an earlier attempt ran out "
        "of memory.",
    )
    learning_rate_halvings: int | None = Field(
        default=None,
        ge=0,
        description="How often the learning rate was halved because the loss diverged in earlier attempts; none: a "
        "loss that diverges ends the run for good.",
    )
    failure_interval: int | None = Field(
        default=None,
        ge=1,
        description="Seconds between failures that end an attempt without notice, for checkpoints.cadence Auto; "
        "none: a day.",
    )
    hang_timeout: int | None = Field(
        default=None,
        ge=1,
        description="Seconds that a step may take before the run counts as hung; none: 20 times the median of the "
        "last steps, at least 600.",
    )
    compared_with: ShortText | None = Field(
        default=None,
        description="ModelVersion that evaluation.against means; empty: there was none; none: nothing is compared.",
    )
    compared_model: ModelInput | None = Field(default=None, description="Where it is.")
    tracking: TrackingInput | None = Field(default=None, description="Where the run is logged as well; none: nowhere.")
    metrics_port: int | None = Field(default=None, description="Port of the trainer's /metrics; none: not served.")

    @property
    def largest(self) -> TrainingPlan:
        """The same attempt with all the nodes that one of this run may have, so that all attempts are alike."""
        return self if self.max_nodes is None else self.model_copy(update={"nodes": self.max_nodes})

    @property
    def shards_weights(self) -> bool:
        """Whether no rank holds the whole model (ZeRO-3): each forward pass then needs all ranks."""
        return self.deepspeed is not None and self.deepspeed.zero_stage == 3

    @model_serializer(mode="wrap")
    def _with_its_own_options(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The plan without the options of other methods, which would confuse readers of the plan or a model's
        lineage."""
        own = self.method.lower()
        return {name: value for name, value in handler(self).items() if name == own or name not in METHOD_BLOCKS}


class VerifyPlan(PlanFields):
    """Re-hash every file against its manifest."""

    kind: Literal["Verify"] = "Verify"
    name: str
    artifacts: Annotated[list[ArtifactInput], Field(min_length=1)]


BILL: Any = Field(
    default=None,
    description="CycloneDX bill of materials without the files; none: from an older operator, and none is written.",
)


class SignPlan(PlanFields):
    """Describe artifacts whose files were verified, and sign them."""

    kind: Literal["Sign"] = "Sign"
    name: str
    artifacts: Annotated[list[ArtifactInput], Field(min_length=1)]
    key_path: PlanPath | None = Field(
        default=None,
        description="Folder of a Secret with private-key.pem; none: somebody else signs, which is checked.",
    )
    provenance: dict[str, Any] = Field(description="Predicate of the in-toto statement, SLSA provenance 1.0.")
    bom: dict[str, Any] | None = BILL


class DeliverPlan(PlanFields):
    """Copies one artifact of a ModelVersion to a registry, a bucket or a volume."""

    kind: Literal["Deliver"] = "Deliver"
    name: Name = Field(description="ModelVersion: the name of the folder in a bucket or on a volume.")
    version: int = Field(ge=1, description="Its number: v<number> is the tag of an image that has none.")
    artifact: ArtifactInput
    target: Delivery
    target_path: PlanPath | None = Field(default=None, description="Folder that pvc://claim/path is.")
    secret_path: PlanPath | None = Field(default=None, description="Folder where target.secretName is mounted.")
    labels: dict[str, str] = Field(default_factory=dict, description="Annotations of an image.")
    created: ShortText | None = Field(default=None, description="When training ended, RFC 3339, for an image.")
    provenance: dict[str, Any] | None = Field(
        default=None, description="The same predicate, for a statement that is attached to an image; none: none is."
    )
    bom: dict[str, Any] | None = BILL
    cluster_domain: str = Field(default="cluster.local", description="Names below svc.<this> are Services.")
    namespace: str | None = NAMESPACE
    limits: Limits = Field(default_factory=Limits)


class RegisterPlan(PlanFields):
    """Registers ModelVersions and sets aliases in MLflow's model registry."""

    kind: Literal["Register"] = "Register"
    model: Name = Field(description="Name of the Model.")
    uri: HttpUrl = Field(description="The server with the registry.")
    name: RegisteredName = Field(description="Name of the registered model.")
    secret_path: PlanPath | None = Field(default=None, description="Folder where secretName is mounted.")
    versions: list[VersionToRegister] = Field(description="Versions to register, and those that get an alias.")
    aliases: list[RegisteredAlias] = Field(default_factory=list, description="Aliases to set, each on one of versions.")
    remove: list[str] = Field(default_factory=list, description="Aliases that point to nothing any more.")
    cluster_domain: str = Field(default="cluster.local", description="Names below svc.<this> are Services.")
    namespace: str | None = NAMESPACE
    limits: Limits = Field(default_factory=Limits)


class ImportPlan(PlanFields):
    """Copies a foreign model to `store`/models/`folder`, after checking it; for an adapter its base too."""

    kind: Literal["Import"] = "Import"
    name: Name = Field(description="Model, for messages.")
    source: ModelImport
    source_volume: PlanPath | None = Field(default=None, description="Where the claim of a pvc:// source is mounted.")
    base_volume: PlanPath | None = Field(default=None, description="Where the claim of a pvc:// base is mounted.")
    secret_path: PlanPath | None = Field(default=None, description="Folder where source.secretName is mounted.")
    base_secret_path: PlanPath | None = Field(default=None, description="Folder where base.secretName is mounted.")
    rows: DatasetInput | None = Field(default=None, description="Rows of source.evaluation; none: nothing is scored.")
    store: PlanPath = Field(description="Path of the store.")
    folder: ExportFolder
    cluster_domain: str = Field(default="cluster.local", description="Names below svc.<this> are Services.")
    namespace: str | None = NAMESPACE
    limits: Limits = Field(default_factory=Limits)


AnyPlan = (
    MaterializePlan
    | MixPlan
    | FetchPlan
    | LookupPlan
    | TasksPlan
    | TrainingPlan
    | VerifyPlan
    | SweepPlan
    | SignPlan
    | DeliverPlan
    | RegisterPlan
    | ImportPlan
)
Plan = Annotated[AnyPlan, Field(discriminator="kind")]
