"""FineTuneJob: one fine-tuning run, from a base model and datasets to a ModelVersion."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from hone_api.meta import (
    CONDITIONS,
    OBSERVED_GENERATION,
    ApiModel,
    Column,
    Condition,
    Decimal,
    Digest,
    Duration,
    HttpUrl,
    Kind,
    KnownUri,
    ModelUri,
    Name,
    Quantity,
    Rule,
    ShortText,
    Text,
    Timestamp,
    between,
    immutable,
    uri_rules,
)


class Method(StrEnum):
    """How the model is tuned."""

    SFT = "SFT"
    DAPT = "DAPT"
    DPO = "DPO"
    KTO = "KTO"
    ORPO = "ORPO"
    REWARD = "Reward"
    PPO = "PPO"
    GRPO = "GRPO"


class ModelRef(ApiModel):
    """The model to start from: exactly one of uri, modelVersion and fineTuneJob."""

    rules = (
        Rule(
            "[has(self.uri), has(self.modelVersion), has(self.fineTuneJob)].filter(x, x).size() == 1",
            "set exactly one of uri, modelVersion and fineTuneJob",
        ),
        Rule(
            "!has(self.secretName) || has(self.uri)",
            "secretName is for uri only: remove it, or name the model by uri",
        ),
        *uri_rules(),
    )
    uri: ModelUri | None = Field(
        default=None,
        description="Base model by URI, e.g. hf://HuggingFaceTB/SmolLM2-135M-Instruct@main or pvc://claim/path.",
    )
    model_version: Name | None = Field(
        default=None, description="Name of a Ready ModelVersion in this namespace to continue from."
    )
    fine_tune_job: Name | None = Field(
        default=None,
        description="Name of a FineTuneJob in this namespace whose ModelVersion is the base; this job waits for it.",
    )
    secret_name: Name | None = Field(
        default=None,
        description="Secret in this namespace with the credentials of uri; key HF_TOKEN for hf://.",
    )


class DatasetRef(ApiModel):
    """Rows to train on."""

    rules = (between("share", "above 0 and at most 1", "> 0.0", "<= 1.0", "0.2"),)

    name: Name = Field(description="Name of a Dataset in this namespace.")
    split: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$", max_length=32)] = Field(
        default="train", description="Split of the Dataset, e.g. train."
    )
    share: Decimal | None = Field(
        default=None, description="Share of the mixture between 0 and 1, e.g. 0.2; default: by rows."
    )


class EvaluationDatasetRef(ApiModel):
    """Held-out rows to evaluate on."""

    name: Name = Field(description="Name of a Dataset in this namespace.")
    split: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$", max_length=32)] = Field(
        default="validation", description="Split of the Dataset, e.g. validation."
    )


class SftMethod(ApiModel):
    """Supervised fine-tuning: which tokens count in the loss."""

    train_on: Literal["Assistant", "LastAssistant"] = Field(
        default="Assistant",
        description="Assistant: every assistant turn or completion counts; LastAssistant: only the last turn.",
    )
    neftune_alpha: Decimal | None = Field(
        default=None, description="NEFTune noise on embeddings, e.g. 5; default: none."
    )


class DaptMethod(ApiModel):
    """Domain-adaptive pre-training on plain text; every token counts."""

    pack: bool = Field(default=True, description="Whether documents are packed, with EOS between; default true.")


class DpoMethod(ApiModel):
    """Direct preference optimisation (Rafailov et al. 2023) and its relatives."""

    loss: Literal["Sigmoid", "IPO", "Hinge"] = Field(default="Sigmoid", description="Loss, e.g. Sigmoid.")
    beta: Decimal = Field(default="0.1", description="Strength of the pull to the reference, e.g. 0.1.")


class KtoMethod(ApiModel):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024)."""

    beta: Decimal = Field(default="0.1", description="Strength of the pull to the reference, e.g. 0.1.")


class OrpoMethod(ApiModel):
    """Odds-ratio preference optimisation (Hong et al. 2024)."""

    weight: Decimal = Field(default="0.1", description="Weight of the odds-ratio term, e.g. 0.1.")


class RewardMethod(ApiModel):
    """Reward model training."""

    center_rewards: Decimal | None = Field(
        default=None, description="Coefficient that pulls rewards to mean zero, e.g. 0.01; default: none."
    )


class PpoMethod(ApiModel):
    """Proximal policy optimisation with a reward model."""

    reward_model_version: Name = Field(description="Name of the ModelVersion of the reward model.")
    kl: Decimal = Field(default="0.05", description="KL coefficient against the reference, e.g. 0.05.")


class GrpoMethod(ApiModel):
    """Group-relative policy optimisation with verifiable rewards."""

    generations: int = Field(default=8, ge=2, le=256, description="Samples per prompt, e.g. 8.")
    beta: Decimal = Field(default="0", description="KL coefficient against the reference, e.g. 0.")


class AdapterType(StrEnum):
    """What is trainable."""

    NONE = "None"
    LORA = "LoRA"
    QLORA = "QLoRA"
    DORA = "DoRA"


class Adapter(ApiModel):
    """Parameter-efficient tuning; type None trains all weights."""

    rules = (
        Rule(
            "self.type != 'None' || !has(self.rank) && !has(self.alpha) && !has(self.dropout) && !has(self.targets)",
            "type None trains all weights: remove rank, alpha, dropout and targets, or set type to LoRA",
        ),
        between("dropout", "at least 0 and below 1", ">= 0.0", "< 1.0", "0.05"),
    )
    type: AdapterType = Field(default=AdapterType.LORA, description="None, LoRA, QLoRA or DoRA; default LoRA.")
    rank: int | None = Field(default=None, ge=1, le=1024, description="Rank of the update; default 16.")
    alpha: int | None = Field(default=None, ge=1, le=4096, description="Scale is alpha/rank; default 2 x rank.")
    dropout: Decimal | None = Field(default=None, description="Dropout on adapter input, 0 to 1; default 0.")
    targets: (
        Annotated[
            list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]+$", max_length=128)]],
            Field(max_length=64),
        ]
        | None
    ) = Field(
        default=None,
        description="Names of linear modules, e.g. q_proj; default: all linear layers but the head.",
    )


class Training(ApiModel):
    """Optimisation. Batch sizes are in rows, lengths in tokens."""

    rules = (
        Rule(
            "!(has(self.epochs) && has(self.maxSteps))",
            "set epochs or maxSteps, not both: remove one of them",
        ),
        Rule(
            "!has(self.microBatchSize) || self.batchSize % self.microBatchSize == 0",
            "batchSize must be a multiple of microBatchSize: change one of them, e.g. 8 and 4",
        ),
        between("epochs", "above 0 and at most 1000", "> 0.0", "<= 1000.0", "3"),
        between("learningRate", "above 0 and at most 1", "> 0.0", "<= 1.0", "2e-4"),
        between("warmupRatio", "at least 0 and at most 1", ">= 0.0", "<= 1.0", "0.03"),
        between("weightDecay", "at least 0 and at most 1", ">= 0.0", "<= 1.0", "0.01"),
        between("maxGradNorm", "above 0 and at most 1000000", "> 0.0", "<= 1000000.0", "1.0"),
    )
    epochs: Decimal | None = Field(default=None, description="Passes over the rows, e.g. 3; default 1.")
    max_steps: int | None = Field(default=None, ge=1, le=10_000_000, description="Optimiser steps, instead of epochs.")
    learning_rate: Decimal | None = Field(
        default=None,
        description="Peak learning rate, e.g. '2e-4'; default 2e-4 for adapters, 2e-5 for full tuning.",
    )
    scheduler: Literal["Linear", "Cosine", "Constant"] = Field(
        default="Linear", description="Learning-rate schedule after warm-up; default Linear (decays to 0)."
    )
    warmup_ratio: Decimal = Field(default="0.03", description="Share of the steps with rising rate, e.g. 0.03.")
    weight_decay: Decimal = Field(default="0", description="AdamW weight decay, e.g. 0.01; default 0.")
    max_grad_norm: Decimal = Field(default="1.0", description="Gradient norm is clipped to this; default 1.0.")
    batch_size: int = Field(
        default=8, ge=1, le=65536, description="Global rows per optimiser step over all ranks; default 8."
    )
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Rows per rank and forward pass; default: the largest divisor up to 8.",
    )
    max_length: int | None = Field(
        default=None,
        ge=8,
        le=1_048_576,
        description="Tokens per row; default: the longest row of the data, at most the model's context.",
    )
    truncation: Literal["Drop", "Truncate", "Refuse"] = Field(
        default="Drop",
        description="Rows over maxLength: Drop, Truncate their end, or Refuse the run; always counted. Default Drop.",
    )
    packing: bool = Field(
        default=False,
        description="Pack several rows into one sequence, without attention across rows; default false.",
    )
    precision: Literal["Auto", "Float32", "BFloat16"] = Field(
        default="Auto", description="Auto is BFloat16 on GPUs that have it, else Float32."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations: less memory, about 30 % more time; default false."
    )
    seed: int = Field(
        default=42, ge=0, le=2_147_483_647, description="Seed of data order and initialisation; default 42."
    )


class EarlyStopping(ApiModel):
    """Stop when the held-out loss no longer improves; the best checkpoint is exported."""

    patience: int = Field(default=3, ge=1, le=1000, description="Evaluations without improvement; default 3.")
    min_delta: Decimal = Field(default="0", description="Improvement that counts, in loss; default 0.")


class Checkpoints(ApiModel):
    """Checkpoints for resuming."""

    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Steps between checkpoints; default: a tenth of the run.",
    )
    keep: int = Field(default=2, ge=2, le=100, description="Newest checkpoints kept beside the best; default 2.")


class Evaluation(ApiModel):
    """Evaluation on held-out rows, before, during and after training."""

    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Steps between evaluations; default: a tenth of the run.",
    )
    max_rows: int = Field(
        default=512, ge=1, le=1_000_000, description="Held-out rows used, in file order; default 512."
    )
    samples: int = Field(
        default=4,
        ge=0,
        le=64,
        description="Held-out prompts answered by base and tuned model for the report; default 4.",
    )


class Resources(ApiModel):
    """What one pod of the run asks for."""

    rules = (
        Rule(
            "!has(self.gpuProducts) || self.gpusPerNode > 0",
            "gpuProducts needs GPUs: set gpusPerNode to at least 1, or remove gpuProducts",
        ),
    )
    nodes: int = Field(default=1, ge=1, le=1024, description="Pods, one a node; default 1.")
    gpus_per_node: int = Field(default=0, ge=0, le=64, description="GPUs of each pod; 0 trains on CPU. Default 0.")
    gpu_resource_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=128)] = (
        Field(default="nvidia.com/gpu", description="Extended resource of a GPU; default nvidia.com/gpu.")
    )
    gpu_products: Annotated[list[Annotated[str, StringConstraints(max_length=63)]], Field(max_length=16)] | None = (
        Field(default=None, description="Allowed values of the node label nvidia.com/gpu.product; default: any.")
    )
    cpu: Quantity = Field(default="2", description="CPU request of each pod, e.g. 8; default 2.")
    memory: Quantity = Field(default="8Gi", description="Memory request and limit of each pod, e.g. 64Gi; default 8Gi.")
    shared_memory: Quantity | None = Field(
        default=None,
        description="Size of /dev/shm, counted against memory; default 1Gi, or 8Gi for several GPUs.",
    )


class DeepSpeed(ApiModel):
    """Sharding by DeepSpeed ZeRO (Rajbhandari et al. 2020)."""

    zero_stage: int = Field(
        default=2,
        ge=1,
        le=3,
        description="1 shards optimiser state, 2 gradients too, 3 weights too; default 2.",
    )
    offload: Literal["None", "Optimizer", "OptimizerAndParameters"] = Field(
        default="None", description="What moves to CPU memory; default None."
    )


class Toleration(ApiModel):
    """core/v1 Toleration."""

    key: ShortText | None = Field(default=None, description="Taint key, e.g. nvidia.com/gpu; absent matches all.")
    operator: Literal["Exists", "Equal"] = Field(default="Equal", description="Exists or Equal; default Equal.")
    value: Annotated[str, StringConstraints(max_length=63)] | None = Field(default=None, description="Taint value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; absent matches all."
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, le=2_147_483_647, description="Seconds a NoExecute taint is tolerated."
    )


class Topology(ApiModel):
    """Kueue topology-aware scheduling."""

    required: ShortText | None = Field(default=None, description="Node label that all pods must share.")
    preferred: ShortText | None = Field(default=None, description="Node label that all pods should share.")


NEW_JOB = "create a new FineTuneJob with another name (one object is one run)"


class Scheduling(ApiModel):
    """Where and when pods run; only priorityClassName can change, for later attempts."""

    rules = tuple(
        immutable("spec.scheduling", name, NEW_JOB) for name in ("queueName", "nodeSelector", "tolerations", "topology")
    )
    queue_name: Name | None = Field(default=None, description="Kueue LocalQueue of this namespace.")
    priority_class_name: ShortText | None = Field(default=None, description="PriorityClass of the pods.")
    node_selector: (
        Annotated[dict[str, Annotated[str, StringConstraints(max_length=63)]], Field(max_length=32)] | None
    ) = Field(default=None, description="Node labels that pods need.")
    tolerations: Annotated[list[Toleration], Field(max_length=16)] | None = Field(
        default=None, description="Taints that pods tolerate; extended resources are tolerated by default."
    )
    topology: Topology | None = Field(default=None, description="Topology-aware placement by Kueue.")


class Restarts(ApiModel):
    """How often a run may start again from its last valid checkpoint."""

    max_restarts: int = Field(default=3, ge=0, le=100, description="Attempts after a failure of the run; default 3.")
    max_preemptions: int = Field(
        default=20, ge=0, le=1000, description="Attempts after a disruption by the cluster; default 20."
    )


class Cleanup(ApiModel):
    """What is removed after the end; the FineTuneJob itself stays as the record."""

    pods_after: Duration | None = Field(
        default=None, description="Time after the end when pods and child Jobs go, e.g. 24h; default: never."
    )


class Push(ApiModel):
    """A copy of the result elsewhere."""

    rules = uri_rules()

    uri: ModelUri = Field(description="Target, e.g. oci://registry/name:tag or s3://bucket/path.")
    secret_name: Name | None = Field(default=None, description="Secret with the credentials of uri.")


class Output(ApiModel):
    """What comes out."""

    model_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=50)] = Field(
        description="Name of the model; its versions are <modelName>-v1, -v2, …"
    )
    version: int | None = Field(default=None, ge=1, le=1_000_000, description="Version number; default: the next.")
    merge: bool = Field(default=False, description="Also export base and adapter merged into one model; default false.")
    formats: Annotated[list[Literal["Safetensors", "GGUF"]], Field(max_length=4)] = Field(
        default=["Safetensors"], description="File formats; default [Safetensors]."
    )
    push: Push | None = Field(default=None, description="Copy of the artifacts elsewhere; default: none.")


class Tracking(ApiModel):
    """An experiment tracker that also gets the metrics."""

    rules = uri_rules()

    type: Literal["MLflow", "WandB", "Trackio"] = Field(description="MLflow, WandB or Trackio.")
    uri: HttpUrl | None = Field(default=None, description="Tracker's URL, e.g. https://mlflow.example.org.")
    secret_name: Name | None = Field(default=None, description="Secret with the tracker's credentials.")


IMMUTABLE = [
    "model",
    "datasets",
    "evaluationDatasets",
    "method",
    "sft",
    "dapt",
    "dpo",
    "kto",
    "orpo",
    "reward",
    "ppo",
    "grpo",
    "adapter",
    "training",
    "earlyStopping",
    "checkpoints",
    "evaluation",
    "resources",
    "deepspeed",
    "restarts",
    "deadline",
    "output",
    "tracking",
    "podOverrides",
]
"""Fields of spec that never change."""

METHOD_BLOCKS = tuple(m.value.lower() for m in Method)


class FineTuneJobSpec(ApiModel):
    """What the user wants. Immutable but for suspend, scheduling and cleanup."""

    rules = (
        *(
            Rule(
                f"!has(self.{block}) || self.method == '{method}'",
                f"the block {block} is for method {method}: remove it, or set method to {method}",
                field_path=f".{block}",
            )
            for block, method in zip(METHOD_BLOCKS, Method, strict=True)
        ),
        Rule(
            "self.method != 'PPO' || has(self.ppo)",
            "method PPO needs the block ppo with rewardModelVersion",
            field_path=".ppo",
        ),
        Rule(
            "!has(self.deepspeed) || self.deepspeed.zeroStage != 3 || self.adapter.type != 'QLoRA'",
            "ZeRO-3 cannot shard 4-bit weights: use zeroStage 2, or adapter type LoRA",
            field_path=".deepspeed",
        ),
        *(immutable("spec", name, NEW_JOB) for name in IMMUTABLE),
    )
    model: ModelRef = Field(description="The model to start from.")
    datasets: Annotated[list[DatasetRef], Field(min_length=1, max_length=16)] = Field(
        description="Rows to train on, one or several Datasets.",
    )
    evaluation_datasets: Annotated[list[EvaluationDatasetRef], Field(max_length=16)] | None = Field(
        default=None, description="Held-out rows; default: the validation split of the first Dataset."
    )
    method: Method = Field(default=Method.SFT, description="How the model is tuned; default SFT.")
    sft: SftMethod | None = Field(default=None, description="Options of method SFT.")
    dapt: DaptMethod | None = Field(default=None, description="Options of method DAPT.")
    dpo: DpoMethod | None = Field(default=None, description="Options of method DPO.")
    kto: KtoMethod | None = Field(default=None, description="Options of method KTO.")
    orpo: OrpoMethod | None = Field(default=None, description="Options of method ORPO.")
    reward: RewardMethod | None = Field(default=None, description="Options of method Reward.")
    ppo: PpoMethod | None = Field(default=None, description="Options of method PPO.")
    grpo: GrpoMethod | None = Field(default=None, description="Options of method GRPO.")
    adapter: Adapter = Field(default_factory=Adapter, description="What is trainable; default LoRA.")
    training: Training = Field(default_factory=Training, description="Optimisation.")
    early_stopping: EarlyStopping | None = Field(default=None, description="Early stopping; default: none.")
    checkpoints: Checkpoints = Field(default_factory=Checkpoints, description="Checkpoints for resuming.")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="Evaluation on held-out rows.")
    resources: Resources = Field(default_factory=Resources, description="What each pod asks for.")
    deepspeed: DeepSpeed | None = Field(default=None, description="Sharding by DeepSpeed; default: none.")
    scheduling: Scheduling = Field(default_factory=Scheduling, description="Where and when pods run.")
    restarts: Restarts = Field(default_factory=Restarts, description="Restart budget.")
    deadline: Duration | None = Field(
        default=None,
        description="Longest time from the start of the first attempt to the end, e.g. 12h; default: none.",
    )
    cleanup: Cleanup = Field(default_factory=Cleanup, description="What is removed after the end.")
    output: Output = Field(description="What comes out.")
    tracking: Annotated[list[Tracking], Field(max_length=4)] | None = Field(
        default=None, description="Experiment trackers; default: none."
    )
    suspend: bool = Field(
        default=False, description="True stops the pods after a checkpoint; false resumes. Default false."
    )
    pod_overrides: dict[str, Any] | None = Field(
        default=None,
        description="Strategic-merge patch on the pod template, for what has no field of its own.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )


class Phase(StrEnum):
    """Where the job is, for people; derived from the conditions, never read by code."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    STARTING = "Starting"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """Conditions of a FineTuneJob; all are present from the first status on."""

    ACCEPTED = "Accepted"
    """The spec can be run by this operator."""
    DATASET_READY = "DatasetReady"
    """All Datasets are Ready."""
    MODEL_READY = "ModelReady"
    """The base model is in the store, at a pinned commit."""
    ADMITTED = "Admitted"
    """The pods of the attempt were scheduled."""
    RUNNING = "Running"
    """An attempt is running."""
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    FINISHED = "Finished"
    """Succeeded or Failed: one condition to wait for."""
    READY = "Ready"
    """The ModelVersion exists (kstatus)."""
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    """Final failure, or a spec that cannot run (kstatus)."""


class JobProgress(ApiModel):
    """Where the current attempt is."""

    step: int = Field(default=0, ge=0, description="Optimiser steps done.")
    total_steps: int | None = Field(default=None, ge=0, description="Optimiser steps of the whole run.")
    percent: int = Field(default=0, ge=0, le=100, description="Steps done, percent.")
    epoch: ShortText | None = Field(default=None, description="Passes over the rows so far.")
    loss: ShortText | None = Field(default=None, description="Latest training loss, nats per token.")
    eval_loss: ShortText | None = Field(default=None, description="Latest held-out loss, nats per token.")
    learning_rate: ShortText | None = Field(default=None, description="Latest learning rate.")
    grad_norm: ShortText | None = Field(default=None, description="Latest gradient norm before clipping.")
    tokens_per_second: ShortText | None = Field(default=None, description="Tokens per second over all ranks.")
    eta: ShortText | None = Field(default=None, description="Estimated time to the end, e.g. 8m.")
    stage: ShortText | None = Field(
        default=None,
        description="What the trainer does: Loading, EvaluatingBase, Training, Evaluating, Exporting.",
    )
    summary: ShortText | None = Field(default=None, description="Steps and percent for people, e.g. 412/1000 41%.")
    last_updated_time: Timestamp | None = Field(default=None, description="When the trainer last reported.")


class MetricPoint(ApiModel):
    """One point of a curve."""

    step: int = Field(ge=0, description="Optimiser step.")
    value: ShortText = Field(description="Value as a decimal string; 'nan' can occur.")


class MetricSeries(ApiModel):
    """A decimated curve; the full one is in the artifact."""

    name: ShortText = Field(description="loss, eval_loss, learning_rate, …")
    points: Annotated[list[MetricPoint], Field(max_length=64)] = Field(
        default_factory=list, description="Points by step, at most 64; older ones are thinned out."
    )


class Memory(ApiModel):
    """Memory of one pod in bytes."""

    estimated: int | None = Field(default=None, ge=0, description="Estimated peak, bytes.")
    peak: int | None = Field(default=None, ge=0, description="Measured peak, bytes.")


class Attempt(ApiModel):
    """One Indexed Job of the run."""

    number: int = Field(ge=1, description="1 for the first attempt.")
    job_name: ShortText = Field(description="Name of the batch/v1 Job.")
    start_time: Timestamp | None = Field(default=None, description="When the Job was created.")
    end_time: Timestamp | None = Field(default=None, description="When it ended.")
    outcome: Literal["Running", "Succeeded", "Failed", "Preempted", "Suspended"] = Field(
        default="Running", description="How it ended."
    )
    reason: ShortText | None = Field(default=None, description="Failure code.")
    start_step: int | None = Field(default=None, ge=0, description="Step it resumed from.")
    end_step: int | None = Field(default=None, ge=0, description="Last step it reported.")


class JobFailure(ApiModel):
    """Why the run failed, enough to start mending it without another command."""

    code: ShortText = Field(description="Failure code, e.g. OutOfMemory.")
    message: Text = Field(default="", description="What happened and where.")
    hint: Text | None = Field(default=None, description="What to do.")
    rank: int | None = Field(default=None, ge=0, description="Rank that failed first.")
    pod: ShortText | None = Field(default=None, description="Its pod.")
    exit_code: int | None = Field(default=None, description="Its exit code.")
    log_tail: Annotated[str, StringConstraints(max_length=8192)] | None = Field(
        default=None, description="Last lines of its log."
    )


class Resolved(ApiModel):
    """Values that the machine chose or pinned."""

    model_commit: ShortText | None = Field(default=None, description="Commit of the base model.")
    model_uri: KnownUri | None = Field(default=None, description="Where the base model lies in the store.")
    dataset_digests: Annotated[dict[str, Digest], Field(max_length=32)] | None = Field(
        default=None, description="Digest of each Dataset used."
    )
    learning_rate: ShortText | None = Field(default=None, description="Peak learning rate.")
    micro_batch_size: int | None = Field(default=None, description="Rows per rank and forward pass.")
    gradient_accumulation_steps: int | None = Field(default=None, description="Forward passes per optimiser step.")
    world_size: int | None = Field(default=None, description="Ranks.")
    max_length: int | None = Field(default=None, description="Tokens per row.")
    adapter_rank: int | None = Field(default=None, description="Rank of the adapter.")
    adapter_alpha: int | None = Field(default=None, description="Alpha of the adapter.")
    image: ShortText | None = Field(default=None, description="Trainer image.")


class FineTuneJobStatus(ApiModel):
    """What is; written by the operator alone."""

    observed_generation: int | None = OBSERVED_GENERATION
    phase: Phase | None = Field(default=None, description="Where the job is, for people.")
    conditions: list[Condition] = CONDITIONS
    progress: JobProgress | None = Field(default=None, description="Where the current attempt is.")
    metrics: Annotated[list[MetricSeries], Field(max_length=16)] | None = Field(
        default=None, description="Decimated curves."
    )
    resolved: Resolved | None = Field(default=None, description="Values that the machine chose or pinned.")
    memory: Memory | None = Field(default=None, description="Memory of one pod.")
    attempts: Annotated[list[Attempt], Field(max_length=128)] | None = Field(
        default=None, description="Attempts, oldest first."
    )
    queue: ShortText | None = Field(default=None, description="Why the job waits in its queue.")
    failure: JobFailure | None = Field(default=None, description="Why the run failed.")
    model_version_name: ShortText | None = Field(default=None, description="Name of the ModelVersion made.")
    start_time: Timestamp | None = Field(default=None, description="When the first attempt started.")
    completion_time: Timestamp | None = Field(default=None, description="When the job ended.")


FINE_TUNE_JOB = Kind(
    kind="FineTuneJob",
    plural="finetunejobs",
    singular="finetunejob",
    short_name="ftj",
    spec=FineTuneJobSpec,
    status=FineTuneJobStatus,
    columns=(
        Column("Phase", ".status.phase"),
        Column("Progress", ".status.progress.summary"),
        Column("Loss", ".status.progress.loss"),
        Column("ETA", ".status.progress.eta"),
        Column("Model", ".status.modelVersionName"),
        Column("Age", ".metadata.creationTimestamp", type="date"),
        Column("Method", ".spec.method", priority=1),
        Column("Base", ".spec.model.uri", priority=1),
        Column("Nodes", ".spec.resources.nodes", type="integer", priority=1),
        Column("GPUs", ".spec.resources.gpusPerNode", type="integer", priority=1),
        Column("Queue", ".spec.scheduling.queueName", priority=1),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
    ),
    selectable=(".status.phase", ".spec.method", ".spec.output.modelName"),
    rules=(
        Rule(
            "size(self.metadata.name) <= 52",
            "metadata.name must be at most 52 characters: pods are called <name>-<attempt>-<rank>",
        ),
        Rule(
            "self.metadata.name.matches('^[a-z][-a-z0-9]*$')",
            "metadata.name must start with a letter and have no dot: a Service is called <name>-<attempt>",
        ),
    ),
)
