"""What a run resolved: the values that Hone chose or pinned for all attempts of a FineTuneJob, in `status.resolved`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from hone_api.base.meta import MAX_COUNT, ApiModel, Digest, KnownUri, Name, ShortText
from hone_api.blocks.shape import ModelShape
from hone_api.dataset.dataset_status import DatasetUse

EncodingKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$", max_length=40)]
"""See `hone_api.contract.encoding.key`."""


class PinnedModel(ApiModel):
    """A ModelVersion that the run reads, pinned when the first attempt started."""

    name: Name = Field(description="Name of the ModelVersion.")
    uri: KnownUri = Field(description="Folder of the weights, e.g. pvc://hone-store/models/…/merged.")
    digest: Digest | None = Field(
        default=None, description="SHA-256 of that folder's manifest.json; absent for a folder without one."
    )
    adapter_uri: KnownUri | None = Field(
        default=None, description="Adapter to merge into these weights first: the version has no merged form."
    )
    adapter_digest: Digest | None = Field(default=None, description="SHA-256 of the adapter's manifest.json.")


TaskDataSet = Annotated[str, StringConstraints(pattern=r"^[!-~]+@[0-9a-f]{40,64}$", max_length=140)]
"""A data set of the hub and its commit, as owner/name@commit."""
MAX_TASK_DATA_SETS = 24


class StagedTasks(ApiModel):
    """The data sets of evaluation.harness, pinned."""

    uri: KnownUri = Field(description="Folder of the data sets in the store.")
    digest: Digest = Field(description="SHA-256 of that folder's manifest.json.")
    version: ShortText = Field(description="Version of lm-evaluation-harness that staged them.")
    data_sets: Annotated[list[TaskDataSet], Field(max_length=MAX_TASK_DATA_SETS)] = Field(
        description="Repositories of the data sets, as owner/name@commit."
    )


class EncodedRows(ApiModel):
    """The rows of the run as tokens, in the store."""

    keys: Annotated[list[EncodingKey], Field(max_length=32)] = Field(
        description="Folders of encoded/ in the store, one for each split."
    )
    digest: Digest = Field(description="SHA-256 over their keys and manifests: the run accepts no others.")


class Resolved(ApiModel):
    """Values that Hone chose or pinned."""

    model_commit: ShortText | None = Field(default=None, description="Commit of the base model.")
    model_uri: KnownUri | None = Field(default=None, description="Folder of the base model in the store.")
    model_digest: Digest | None = Field(
        default=None,
        description="SHA-256 of manifest.json of a base model that was fetched: each node compares every file with "
        "this manifest.",
    )
    model_shape: ModelShape | None = Field(default=None, description="Sizes of the base model.")
    model_license: ShortText | None = Field(default=None, description="Licence that the card of the base model names.")
    model_version: PinnedModel | None = Field(
        default=None, description="The ModelVersion that is the base model, for a stage of a chain."
    )
    model_versions: Annotated[list[PinnedModel], Field(max_length=16)] | None = Field(
        default=None, description="Other ModelVersions that the method reads, e.g. its reward model."
    )
    compared_with: ShortText | None = Field(
        default=None,
        description="ModelVersion that evaluation.against means; empty: its alias pointed to none.",
    )
    dataset_digests: Annotated[dict[str, Digest], Field(max_length=32)] | None = Field(
        default=None, description="Digest of each Dataset used."
    )
    dataset_licenses: Annotated[dict[str, ShortText], Field(max_length=32)] | None = Field(
        default=None, description="Licences of the Datasets used whose sources name one."
    )
    datasets: Annotated[list[DatasetUse], Field(max_length=16)] | None = Field(
        default=None, description="What each Dataset contributed to an epoch, as counted by the finished run."
    )
    evaluation_datasets: Annotated[list[ShortText], Field(max_length=16)] | None = Field(
        default=None, description="Held-out rows, as <Dataset>/<split>."
    )
    evaluation_tasks: StagedTasks | None = Field(default=None, description="The data sets of evaluation.harness.")
    encoded_rows: EncodedRows | None = Field(
        default=None, description="The rows as tokens, where a Job encoded them before the first attempt."
    )
    learning_rate: ShortText | None = Field(default=None, description="Peak learning rate.")
    micro_batch_size: int | None = Field(
        default=None,
        ge=0,
        le=MAX_COUNT,
        description="Rows per rank and forward pass; where nothing is padded, a pass has the tokens of so many of the "
        "longest row at most.",
    )
    gradient_accumulation_steps: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Forward passes per optimiser step, at most."
    )
    world_size: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Ranks.")
    attention: ShortText | None = Field(
        default=None,
        description="How rows of one pass attend, and why: Varlen, Flex and Rows without padding; Masks with padding, "
        "or with a mask over a packed sequence.",
    )
    activation_checkpointing: ShortText | None = Field(
        default=None, description="Layers that are recomputed, where training.activationCheckpointing is Auto."
    )
    max_length: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Tokens per row.")
    rope_scaling: ShortText | None = Field(
        default=None, description="How training.ropeScaling changes the model's context, with both lengths in tokens."
    )
    adapter_rank: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Rank of the adapter.")
    adapter_alpha: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Alpha of the adapter.")
    adapted_modules: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Layers that have an adapter.")
    adapted_layers: ShortText | None = Field(
        default=None, description="How many layers of each name have an adapter, e.g. 'q_proj 32, v_proj 32'."
    )
    image: ShortText | None = Field(default=None, description="Trainer image.")
