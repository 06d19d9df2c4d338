"""The plan of an attempt of a training run."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer

from hone_api.base.meta import ApiModel, Digest, KnownUri, Name, ShortText
from hone_api.blocks.evaluation import Evaluation
from hone_api.blocks.tracking import ExperimentName, TrackerType
from hone_api.blocks.training import Adapter, Checkpoints, DeepSpeed, EarlyStopping, Training
from hone_api.combinations.rules import RUN_RULES
from hone_api.kinds.finetunejob import Output
from hone_api.methods import METHOD_BLOCKS, Method, PlanBlocks
from hone_api.plan.fields import (
    PODS,
    TRUSTED,
    ArtifactInput,
    DatasetInput,
    Destinations,
    ModelInput,
    PlanFields,
    PodPlace,
    PublicKey,
    TasksInput,
)
from hone_api.plan.plan_paths import PlanPath


class TrackingInput(ApiModel):
    """The run of a tracker that gets the parameters and metrics."""

    type: TrackerType = "MLflow"
    uri: KnownUri = Field(description="The tracking server, or the folder of the store.")
    path: PlanPath | None = Field(default=None, description="That folder in the pod; none: a server.")
    group: ShortText | None = Field(default=None, description="What the run is part of: a sweep, or a chain.")
    parent: ShortText | None = Field(default=None, description="Uid of the job that began the chain.")
    experiment: ExperimentName = Field(description="Name of the experiment.")
    secret_path: PlanPath | None = Field(default=None, description="Folder where tracking.secretName is mounted.")
    uid: ShortText = Field(description="Of the FineTuneJob: attempts find the run by it.")
    tags: dict[str, str] = Field(default_factory=dict, description="Further tags of the run.")

    @property
    def place(self) -> str:
        """For messages: the tracker, and its host or folder."""
        return f"{self.type} {'in' if self.path else 'at'} {self.uri if self.path else urlsplit(self.uri).hostname}"


class _Attempt(PlanFields):
    """What comes first in a training plan."""

    kind: Literal["Training"] = "Training"
    run: str = Field(description="Name of the run, for messages and the model card.")
    attempt: int = Field(default=1, ge=1)
    method: Method = Method.SFT


class TrainingPlan(PodPlace, Destinations, PlanBlocks, _Attempt):
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
        description="Folder of encoded splits, each in the folder of its key (`hone_api.contract.encoding.key`): "
        "`encode` writes them there, `run` reads them. `run` encodes in workPath what is not there; none: everything.",
    )
    encoded_digest: Digest | None = Field(
        default=None,
        description="What `encode` reported as its digest: a run with other encoded splits fails; none: they are "
        "compared with their own manifests alone.",
    )
    pods: int | None = PODS
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
    def base(self) -> ModelInput:
        """The base model."""
        return ModelInput(
            path=self.model_path, digest=self.model_digest, adapter=self.model_adapter, trusted=self.model_trusted
        )

    @property
    def largest(self) -> TrainingPlan:
        """The same attempt with all the nodes that one of this run may have, so that all attempts are alike."""
        return self if self.max_nodes is None else self.model_copy(update={"nodes": self.max_nodes})

    @property
    def waits_in_passes(self) -> bool:
        """Whether ranks wait for each other within a forward pass."""
        return self.shards_weights or self.training.sequence_parallel is not None

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
