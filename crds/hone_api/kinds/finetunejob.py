"""FineTuneJob: one fine-tuning run, from a base model and datasets to a ModelVersion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from hone_api.base.cel import is_match
from hone_api.base.meta import (
    ApiModel,
    BaseModelUri,
    DeletionPolicy,
    Duration,
    Kind,
    Name,
    Percent,
    ShortText,
    base_model_rules,
    keyed_by,
    pattern_rule,
    uri_rules,
)
from hone_api.base.rule import Immutable, Rule
from hone_api.blocks.delivery import ONE_PUSH, Deliveries
from hone_api.blocks.evaluation import Evaluation, EvaluationDatasetRef
from hone_api.blocks.placement import NEW_JOB, Budget, Cleanup, Resources, Restarts, Scheduling
from hone_api.blocks.pod_settings import PodSettings
from hone_api.blocks.tracking import Tracking
from hone_api.blocks.training import Adapter, Checkpoints, DeepSpeed, EarlyStopping, Training
from hone_api.combinations.elastic import ELASTIC_RULES
from hone_api.combinations.probing import PROBING_RULES
from hone_api.combinations.rules import RUN_RULES
from hone_api.kinds.finetunejob_status import COLUMNS, FineTuneJobStatus
from hone_api.kinds.unsupported import UNSUPPORTED
from hone_api.methods import METHOD_BLOCKS, Method, SpecBlocks, block_rules


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
        Rule(
            "!has(self.secretName) || !has(self.uri) || !self.uri.startsWith('models://')",
            "secretName is not for models://: remove it, the model is in the namespace's store",
        ),
        *uri_rules(),
        *base_model_rules(),
    )
    uri: BaseModelUri | None = Field(
        default=None,
        description="Base model by URI, e.g. hf://HuggingFaceTB/SmolLM2-135M-Instruct@main or pvc://claim/path; "
        "oci:// is an image with the files in /models, which the kubelet mounts (Kubernetes 1.35 or later); "
        "models://name@alias is the ModelVersion to which the alias of a Model in this namespace points when the job "
        "is accepted.",
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
        description="Secret in this namespace with the credentials of uri; key HF_TOKEN for hf://; for oci://, of type "
        "kubernetes.io/dockerconfigjson, with which the kubelet pulls.",
    )


class DatasetRef(ApiModel):
    """Rows to train on."""

    rules = (
        Rule(
            "double(self.replace('%', '')) > 0.0",
            "share must be above 0%, e.g. 10%",
            of="share",
            one_field=True,
        ),
    )

    name: Name = Field(description="Name of a Dataset in this namespace.")
    split: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$", max_length=32)] = Field(
        default="train", description="Split of the Dataset, e.g. train."
    )
    share: Percent | None = Field(
        default=None,
        description="Share of the rows of an epoch, e.g. 10%; rows are left out or repeated to match it. Default: all "
        "rows, once per epoch. If every entry has a share, the rows of the first are used once per epoch.",
    )


def _once(name: str) -> Rule:
    """No split of a Dataset is named twice."""
    return Rule(
        "self.all(d, self.exists_one(e, e.name == d.name && e.split == d.split))",
        f"{name} names a split of a Dataset twice: remove one",
        of=name,
    )


MODEL_NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
MODEL_NAME_MESSAGE = (
    "modelName has lower-case letters, digits and - only, and begins and ends with a letter or digit, e.g. support-bot"
)


def _checked_model_name(name: str) -> str:
    """The same where no API server checks: in a plan on a laptop."""
    if not is_match(MODEL_NAME, name):
        raise ValueError(MODEL_NAME_MESSAGE)
    return name


class Output(ApiModel):
    """The result of the run."""

    rules = (
        pattern_rule("modelName", MODEL_NAME, MODEL_NAME_MESSAGE),
        ONE_PUSH,
    )

    model_name: Annotated[str, StringConstraints(max_length=50), AfterValidator(_checked_model_name)] = Field(
        description="Name of the model; its versions are <modelName>-v1, -v2, …"
    )
    version: int | None = Field(default=None, ge=1, le=1_000_000, description="Version number; default: the next.")
    merge: bool = Field(default=False, description="Also export base and adapter merged into one model; default false.")
    formats: Annotated[list[Literal["Safetensors", "GGUF"]], Field(max_length=4)] = Field(
        default=["Safetensors"],
        description="File formats; default [Safetensors], which is always written. GGUF is for llama.cpp and Ollama: "
        "the whole model in one file, so an adapter needs merge.",
    )
    gguf_precision: Literal["Float32", "Float16", "BFloat16", "Q8"] = Field(
        default="Float16", description="Weights in the GGUF file; Q8 is 8 bits in blocks of 32; default Float16."
    )
    deletion_policy: DeletionPolicy | None = Field(
        default=None,
        description="Whether the files of the model are removed from the store some time after its ModelVersion is "
        "deleted, by a person or by spec.retention of the Model. Delete or Retain, the default. It is copied to "
        "the ModelVersion, where you can change it.",
    )
    push: Deliveries | None = Field(
        default=None,
        description="Where to copy the finished model once its files are verified; default: nowhere. The "
        "ModelVersion has the state of each copy. A copy that fails does not fail the run.",
    )


IMMUTABLE = (
    "model",
    "datasets",
    "evaluationDatasets",
    "method",
    *METHOD_BLOCKS,
    "adapter",
    "training",
    "earlyStopping",
    "checkpoints",
    "evaluation",
    "resources",
    "pod",
    "deepspeed",
    "restarts",
    "deadline",
    "budget",
    "output",
    "tracking",
    "submittedBy",
    "use",
)
"""Fields of spec that never change."""


class _WhatToTrain(ApiModel):
    """What comes first in a spec."""

    model: ModelRef = Field(description="The model to start from.")
    datasets: Annotated[list[DatasetRef], keyed_by("name", "split", min_length=1, max_length=16)] = Field(
        description="Rows to train on, one or several Datasets.",
    )
    evaluation_datasets: Annotated[list[EvaluationDatasetRef], keyed_by("name", "split", max_length=16)] | None = Field(
        default=None, description="Held-out rows; default: the validation split of each Dataset that has one."
    )
    method: Method = Field(default=Method.SFT, description="How the model is tuned; default SFT.")


class FineTuneJobSpec(SpecBlocks, _WhatToTrain):
    """Desired state. Immutable except for suspend, scheduling.priorityClassName and cleanup."""

    rules = (
        *(rule.at_creation() for rule in (*block_rules(), *RUN_RULES, *ELASTIC_RULES, *PROBING_RULES)),
        _once("datasets"),
        _once("evaluationDatasets"),
        Rule(
            "!has(self.training.sequenceParallel) || self.resources.gpusPerNode > 0 && "
            "self.resources.gpusPerNode % self.training.sequenceParallel == 0",
            "training.sequenceParallel divides rows among GPUs of one node: set resources.gpusPerNode to a multiple of "
            "it, or remove it",
            field_path=".training",
        ).at_creation(),
        Rule(
            "self.size() <= 1",
            "a run is logged to one tracker: remove the other entries of tracking",
            of="tracking",
        ),
        Rule(
            "!has(self.budget) || self.resources.gpusPerNode > 0",
            "budget counts GPU hours, and the run has no GPU: remove it, or limit the time by deadline",
            field_path=".budget",
        ).at_creation(),
        *(each.rule() for each in UNSUPPORTED),
    )
    immutable = Immutable("spec", IMMUTABLE, NEW_JOB)
    adapter: Adapter = Field(default_factory=Adapter, description="Which weights are trained; default LoRA.")
    training: Training = Field(default_factory=Training, description="Optimisation.")
    early_stopping: EarlyStopping | None = Field(default=None, description="Early stopping; default: none.")
    checkpoints: Checkpoints = Field(default_factory=Checkpoints, description="Checkpoints for resuming.")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="Evaluation on held-out rows.")
    resources: Resources = Field(default_factory=Resources, description="What each pod requests.")
    pod: PodSettings | None = Field(
        default=None, description="Labels, environment and volumes of the pods that train; default: the chart's."
    )
    deepspeed: DeepSpeed | None = Field(default=None, description="Sharding by DeepSpeed; default: none.")
    scheduling: Scheduling = Field(default_factory=Scheduling, description="Where and when pods run.")
    restarts: Restarts = Field(default_factory=Restarts, description="Restart budget.")
    deadline: Duration | None = Field(
        default=None,
        description="Longest time from the start of the first attempt to the end, without later waits in a queue, "
        "e.g. 12h; default: none. After that, the pods save a checkpoint and stop, and the run fails.",
    )
    budget: Budget | None = Field(
        default=None,
        description="GPU hours, or what they may cost; default: no limit. Once they are used, the pods save a "
        "checkpoint and stop, and the run fails with BudgetExceeded. The jobs by which a Model repeats this one share "
        "the budget with it.",
    )
    cleanup: Cleanup = Field(default_factory=Cleanup, description="What is removed after the run.")
    output: Output = Field(description="The result of the run.")
    tracking: Annotated[list[Tracking], keyed_by("type", max_length=4)] | None = Field(
        default=None,
        description="Where parameters and metrics of the run are logged as well, at most one tracker. A server that "
        "does not answer, or a full disk, neither stops nor slows the run. Default: none.",
    )
    submitted_by: ShortText | None = Field(
        default=None,
        description="User who submits the job, as `kubectl auth whoami` prints it; the API server refuses any other. "
        "The ModelVersion records it. Required where the platform separates training from approval.",
    )
    use: Literal["Commercial", "NonCommercial"] | None = Field(
        default=None,
        description="What the model is for. With Commercial, condition Advised names each base model and Dataset whose "
        "licence forbids commercial use by its name, e.g. cc-by-nc-4.0; nothing is refused. Default: licences are not "
        "compared.",
    )
    suspend: bool = Field(
        default=False, description="True stops the pods after a checkpoint; false resumes. Default false."
    )


_JOB_NAME = "^[a-z][-a-z0-9]*$"
FINE_TUNE_JOB = Kind(
    kind="FineTuneJob",
    plural="finetunejobs",
    singular="finetunejob",
    short_name="ftj",
    spec=FineTuneJobSpec,
    status=FineTuneJobStatus,
    columns=COLUMNS,
    selectable=(".status.phase", ".spec.method", ".spec.output.modelName"),
    not_supported=tuple(each.path for each in UNSUPPORTED if each.whole),
    rules=(
        Rule(
            "size(self.metadata.name) <= 52",
            "metadata.name must be at most 52 characters: pods are called <name>-<attempt>-<rank>",
        ),
        Rule(
            f"self.metadata.name.matches('{_JOB_NAME}')",
            "metadata.name must start with a letter and have no dot: a Service is called <name>-<attempt>",
        ),
    ),
)
