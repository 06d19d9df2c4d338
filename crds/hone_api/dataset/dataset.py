"""Dataset: rows from a source, validated, split and materialized once into the namespace's store."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.base.meta import (
    MAX_COUNT,
    ApiModel,
    ColumnExpression,
    ColumnName,
    Duration,
    Kind,
    Name,
    Percent,
    Quantity,
    at_least,
    keyed_by,
)
from hone_api.base.rule import Rule
from hone_api.dataset.curation import Curation
from hone_api.dataset.dataset_status import COLUMNS, DatasetStatus
from hone_api.dataset.source import Source
from hone_api.dataset.synthesis import Raft, Synthesis


class Format(StrEnum):
    """Shape of a row; Auto detects it from the first rows and reports why."""

    AUTO = "Auto"
    ALPACA = "Alpaca"
    SHAREGPT = "ShareGPT"
    CHAT = "Chat"
    PROMPT_COMPLETION = "PromptCompletion"
    TEXT = "Text"
    PREFERENCE = "Preference"
    KTO = "KTO"
    VERIFIABLE = "Verifiable"
    RAFT = "RAFT"


class Splits(ApiModel):
    """How rows are assigned to splits: by a hash of content and seed. Rows of the previous content keep their split."""

    validation: Percent = Field(default="5%", description="Share held out for evaluation, e.g. 5%; default 5%.")
    test: Percent = Field(default="0%", description="Share held out for a final test, e.g. 5%; default 0%.")
    seed: int = Field(default=0, ge=0, le=2_147_483_647, description="Seed of the assignment; default 0.")
    group_by: ColumnName | None = Field(
        default=None,
        description="Column whose equal values are always in the same split, e.g. document_id; default: rows with the "
        "same question stay together, unless they are more than a held-out split has.",
    )
    stratify_by: ColumnName | None = Field(
        default=None,
        description="Column whose values have the same proportions in every split, e.g. category; rows appended at "
        "the end do not move other rows. Default: none.",
    )
    near_duplicates: Literal["Ignore", "Group"] = Field(
        default="Ignore",
        description="Group: near duplicates (curation.nearDuplicates) are also in the same split; default Ignore.",
    )


class Checks(ApiModel):
    """Conditions under which the Dataset is not Ready."""

    min_rows: int = Field(default=1, ge=1, le=1_000_000_000, description="Minimum number of valid rows; default 1.")
    max_rejected: Percent = Field(
        default="5%",
        description="Maximum share of rejected rows, e.g. 5%; default 5%. Rejected rows are never trained on.",
    )
    max_rejected_rows: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000_000,
        description="Maximum number of rejected rows, in addition to maxRejected; default: any number.",
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Longest row, in tokens as counted in status.tokens; longer rows are rejected. Default: any.",
    )
    languages: (
        Annotated[
            list[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$", max_length=3)]],
            Field(max_length=32),
        ]
        | None
    ) = Field(default=None, description="Required languages, ISO 639-1, e.g. [en, de]; default: any.")
    min_language_share: Percent = Field(
        default="90%",
        description="Smallest share of rows in one of these languages, in a sample of up to 2000 rows that are long "
        "enough to identify; default 90%.",
    )


class MixturePart(ApiModel):
    """A Dataset and its weight in a mixture."""

    rules = (
        Rule(
            "double(self.replace('%', '')) > 0.0",
            "weight must be above 0%, e.g. 10%",
            of="weight",
            one_field=True,
        ),
    )
    name: Name = Field(description="Name of a Dataset in this namespace.")
    weight: Percent = Field(description="Share of the mixture, e.g. 80%; all weights must add up to 100%.")


class Refresh(ApiModel):
    """When to check whether the source has changed; an unchanged source is not read again."""

    rules = (
        Rule(
            "[has(self.every), has(self.schedule)].filter(x, x).size() == 1",
            "set exactly one of every and schedule",
        ),
        Rule(
            "!has(self.timeZone) || has(self.schedule)",
            "timeZone is for schedule: remove it",
            field_path=".timeZone",
        ),
    )
    every: Duration | None = Field(
        default=None, description="Time from one check to the next, e.g. 24h; at least 5m. Alternative: schedule."
    )
    schedule: Annotated[str, StringConstraints(pattern=r"^\S+( \S+){4}$", max_length=128)] | None = Field(
        default=None, description="Times of the checks in cron's five fields, e.g. 0 3 * * 1-5. Alternative: every."
    )
    time_zone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][-A-Za-z0-9_+/]*$", max_length=64)] | None = Field(
        default=None, description="Time zone of schedule, e.g. Europe/Berlin; default UTC."
    )


MAX_PODS = 16


class DatasetResources(ApiModel):
    """What each materializing pod requests, and how many there are."""

    rules = (at_least("cpu", "10m", "500m"), at_least("memory", "64Mi", "2Gi"))

    cpu: Quantity | None = Field(
        default=None, description="CPU request, e.g. 2 or '1.5'; default: what the platform chose, 500m unless changed."
    )
    memory: Quantity | None = Field(
        default=None,
        description="Memory request and limit, e.g. 4Gi; default: what the platform chose, 2Gi unless changed.",
    )
    pods: int = Field(
        default=1,
        ge=1,
        le=MAX_PODS,
        description="Pods that read and check rows, each with this cpu and memory; default 1. The first one also "
        "compares and writes all of them. More than 1 need a ReadWriteMany store. The number does not change the rows.",
    )


class DatasetSpec(ApiModel):
    """Desired state. An edit materializes a new revision with a new digest; running jobs keep their revision."""

    rules = (
        Rule(
            "self.size() > 0",
            "name the parts of the mixture",
            of="mixture",
            one_field=True,
        ),
        Rule(
            "has(self.mixture) || self.mixtureBy == 'Rows' && !has(self.mixtureTotal)",
            "mixtureBy and mixtureTotal are for a mixture: remove them",
        ),
        Rule(
            "[has(self.source), has(self.mixture)].filter(x, x).size() == 1",
            "set exactly one of source and mixture",
        ),
        Rule(
            "!has(self.mixture) || !has(self.resources.pods) || self.resources.pods == 1",
            "resources.pods above 1 is for a source: one pod combines the parts of a mixture",
            field_path=".resources.pods",
        ),
        Rule(
            "!has(self.synthesis) || has(self.source)",
            "spec.synthesis needs a source: the seed rows or documents",
        ),
        Rule(
            "!has(self.raft) || has(self.source)",
            "spec.raft needs a source: the documents and questions",
        ),
        Rule(
            "!has(self.raft) || has(self.synthesis) && self.synthesis.template == 'RAFT'"
            " || !has(self.synthesis) && self.format in ['Auto', 'RAFT']",
            "spec.raft is for format RAFT, or for synthesis.template RAFT",
        ),
    )
    source: Source | None = Field(default=None, description="Where the rows come from.")
    format: Format = Field(default=Format.AUTO, description="Shape of a row; default Auto.")
    columns: Annotated[dict[str, ColumnExpression], Field(max_length=16)] | None = Field(
        default=None,
        description="Role to column, e.g. {prompt: question, completion: answer}, or to a JMESPath expression over the "
        "row, e.g. input.messages, instances[0].output, 'a constant', lines(instruction, context), json(messages), "
        'name(label, `["no", "yes"]`), pick(label, {"1": a, "2": b}); roles by format: prompt, '
        "completion; messages; instruction, input, output, history; conversations; text; chosen, rejected; label; "
        "answer, tests, entryPoint, solution; question, oracle, distractors, reasoning (raft: also text, id); "
        "system, tools; of every format: answer, what rewards compare an answer with, and recorded, what another model "
        "answered.",
    )
    ignore_columns: Annotated[list[ColumnName], Field(max_length=64)] | None = Field(
        default=None,
        description="Columns that are ignored on purpose, e.g. [images]. Other columns that seem to belong to the "
        "rows are refused if no role reads them. Default: none.",
    )
    splits: Splits = Field(default_factory=Splits, description="How rows are assigned to splits.")
    checks: Checks = Field(default_factory=Checks, description="What rows must meet for the Dataset to be Ready.")
    curation: Curation | None = Field(default=None, description="Which rows are removed or changed; default: none.")
    mixture: Annotated[list[MixturePart], keyed_by("name", max_length=16)] | None = Field(
        default=None,
        description="Several Datasets combined, split by split. The rows of the first are used once; rows of the "
        "others are left out or repeated to match the weights. Default: none.",
    )
    mixture_by: Literal["Rows", "Tokens"] = Field(
        default="Rows", description="Unit of weights and of mixtureTotal; default Rows."
    )
    mixture_total: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = Field(
        default=None,
        description="Size of the mixture's train split; default: as many as use each row of the first part once.",
    )
    refresh: Refresh | None = Field(
        default=None,
        description="When to check whether the source has changed; default: only when the spec is edited.",
    )
    synthesis: Synthesis | None = Field(
        default=None, description="Rows generated from the source's; the Dataset has only these. Default: none."
    )
    raft: Raft | None = Field(
        default=None,
        description="Builds a RAFT set of the source's documents (text) and questions (question, answer, oracle); "
        "default: the rows are already RAFT rows.",
    )
    resources: DatasetResources = Field(default_factory=DatasetResources, description="The materializing pods.")
    suspend: bool = Field(default=False, description="True stops materializing; default false.")


DATASET = Kind(
    kind="Dataset",
    plural="datasets",
    singular="dataset",
    short_name="dset",
    spec=DatasetSpec,
    status=DatasetStatus,
    columns=COLUMNS,
    selectable=(".status.phase", ".spec.format"),
    rules=(
        Rule(
            "size(self.metadata.name) <= 52",
            "metadata.name must be at most 52 characters: its Job is called <name>-<suffix>",
        ),
        Rule(
            "!self.metadata.name.contains('.')",
            "metadata.name must have no dot, as FineTuneJobs name it: use - instead",
        ),
    ),
)
