"""Dataset: rows from a source, validated, split and materialised once into the namespace's store."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.curation import Curation, CurationStep
from hone_api.meta import (
    CONDITIONS,
    MAX_COUNT,
    OBSERVED_GENERATION,
    ApiModel,
    Column,
    ColumnExpression,
    ColumnName,
    Condition,
    Digest,
    Duration,
    Kind,
    Name,
    Percent,
    Quantity,
    Rule,
    ShortText,
    Storable,
    Text,
    Timestamp,
    at_least,
)
from hone_api.source import Source
from hone_api.synthesis import Raft, ReviewPod, Synthesis, SyntheticRows


class Format(StrEnum):
    """Shape of a row; Auto recognises it from the first rows and says why."""

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
    """How rows are divided: by a hash of their content and the seed. Rows of the content before keep their split."""

    validation: Percent = Field(default="5%", description="Share held out for evaluation, e.g. 5%; default 5%.")
    test: Percent = Field(default="0%", description="Share held out for a final test, e.g. 5%; default 0%.")
    seed: int = Field(default=0, ge=0, le=2_147_483_647, description="Seed of the division; default 0.")
    group_by: ColumnName | None = Field(
        default=None,
        description="Column whose equal values never cross splits, e.g. document_id; default: the whole row.",
    )
    stratify_by: ColumnName | None = Field(
        default=None,
        description="Column whose values every split holds in the same proportions, e.g. category; rows that are "
        "appended at the end move no other. Default: none.",
    )
    near_duplicates: Literal["Ignore", "Group"] = Field(
        default="Ignore",
        description="Group: near duplicates (curation.nearDuplicates) never cross splits either; default Ignore.",
    )


class Checks(ApiModel):
    """What makes the Dataset not Ready."""

    min_rows: int = Field(default=1, ge=1, le=1_000_000_000, description="Least valid rows; default 1.")
    max_rejected: Percent = Field(
        default="5%",
        description="Largest share of rejected rows, e.g. 5%; default 5%. Rejected rows are never trained on.",
    )
    max_rejected_rows: int | None = Field(
        default=None, ge=0, le=1_000_000_000, description="Most rejected rows, beside maxRejected; default: any number."
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Longest row in tokens, as status.tokens counts them; longer ones are rejected. Default: any.",
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
        description="Least share of rows in one of languages, over a sample of up to 2000 rows that are long enough "
        "to tell; default 90%.",
    )


class MixturePart(ApiModel):
    """A Dataset and its weight in a mixture."""

    rules = (
        Rule("double(self.weight.replace('%', '')) > 0.0", "weight must be above 0%, e.g. 10%", field_path=".weight"),
    )
    name: Name = Field(description="Name of a Dataset in this namespace.")
    weight: Percent = Field(description="Share of the whole, e.g. 80%; all weights are 100% together.")


class Refresh(ApiModel):
    """When it is looked whether the source has changed; what has not changed is not read again."""

    rules = (
        Rule("[has(self.every), has(self.schedule)].filter(x, x).size() == 1", "set exactly one of every and schedule"),
        Rule(
            "!has(self.timeZone) || has(self.schedule)", "timeZone is for schedule: remove it", field_path=".timeZone"
        ),
    )
    every: Duration | None = Field(
        default=None, description="Time from one look to the next, e.g. 24h; at least 5m. Or schedule."
    )
    schedule: Annotated[str, StringConstraints(pattern=r"^\S+( \S+){4}$", max_length=128)] | None = Field(
        default=None, description="Times of the looks in cron's five fields, e.g. 0 3 * * 1-5. Or every."
    )
    time_zone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][-A-Za-z0-9_+/]*$", max_length=64)] | None = Field(
        default=None, description="Zone of schedule, e.g. Europe/Berlin; default UTC."
    )


class DatasetResources(ApiModel):
    """What the materialising pod asks for."""

    rules = (at_least("cpu", "10m", "500m"), at_least("memory", "64Mi", "2Gi"))

    cpu: Quantity = Field(default="500m", description="CPU request, e.g. 2; default 500m.")
    memory: Quantity = Field(default="2Gi", description="Memory request and limit, e.g. 4Gi; default 2Gi.")


class DatasetSpec(ApiModel):
    """What the user wants. An edit materialises a new revision with a new digest; running jobs keep theirs."""

    rules = (
        Rule("!has(self.mixture) || self.mixture.size() > 0", "name the parts of the mixture", field_path=".mixture"),
        Rule(
            "has(self.mixture) || self.mixtureBy == 'Rows' && !has(self.mixtureTotal)",
            "mixtureBy and mixtureTotal are for a mixture: remove them",
        ),
        Rule(
            "[has(self.source), has(self.mixture)].filter(x, x).size() == 1",
            "set exactly one of source and mixture",
        ),
        Rule(
            "!has(self.synthesis) || has(self.source)",
            "spec.synthesis needs a source: the seed rows or documents",
        ),
        Rule("!has(self.raft) || has(self.source)", "spec.raft needs a source: the documents and questions"),
        Rule(
            "!has(self.raft) || (has(self.synthesis) ? self.synthesis.template == 'RAFT'"
            " : self.format in ['Auto', 'RAFT'])",
            "spec.raft is for format RAFT, or for synthesis.template RAFT",
        ),
    )
    source: Source | None = Field(default=None, description="Where the rows come from.")
    format: Format = Field(default=Format.AUTO, description="Shape of a row; default Auto.")
    columns: Annotated[dict[str, ColumnExpression], Field(max_length=16)] | None = Field(
        default=None,
        description="Role to column, e.g. {prompt: question, completion: answer}, or to a JMESPath expression over the "
        "row, e.g. input.messages, instances[0].output, 'a constant', lines(instruction, context), json(messages), "
        'name(label, `["no", "yes"]`); roles by format: prompt, '
        "completion; messages; instruction, input, output, history; conversations; text; chosen, rejected; label; "
        "answer, tests, entryPoint, solution; question, oracle, distractors, reasoning (raft: text, id, too); "
        "system, tools.",
    )
    ignore_columns: Annotated[list[ColumnName], Field(max_length=64)] | None = Field(
        default=None,
        description="Columns that are left out on purpose, e.g. [images]; others that seem to belong to the rows are "
        "refused where no role reads them. Default: none.",
    )
    splits: Splits = Field(default_factory=Splits, description="How rows are divided.")
    checks: Checks = Field(default_factory=Checks, description="What makes the Dataset not Ready.")
    curation: Curation | None = Field(default=None, description="What is removed from the rows; default: nothing.")
    mixture: Annotated[list[MixturePart], Field(max_length=16)] | None = Field(
        default=None,
        description="Several Datasets in one, split by split. The first one's rows are used once, the others' are left "
        "out or repeated for their weights. Default: none.",
    )
    mixture_by: Literal["Rows", "Tokens"] = Field(
        default="Rows", description="What weights are shares of, and mixtureTotal counts; default Rows."
    )
    mixture_total: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = Field(
        default=None, description="Size of the mixture's train split; default: the first part's once, and its share."
    )
    refresh: Refresh | None = Field(
        default=None,
        description="Looks on a schedule whether the source has changed; default: when the spec is edited.",
    )
    synthesis: Synthesis | None = Field(
        default=None, description="Rows generated from the source's; they alone make up the Dataset. Default: none."
    )
    raft: Raft | None = Field(
        default=None,
        description="Builds a RAFT set of the source's documents (text) and questions (question, answer, oracle); "
        "default: rows are RAFT rows already.",
    )
    resources: DatasetResources = Field(default_factory=DatasetResources, description="The materialising pod.")
    suspend: bool = Field(default=False, description="True stops materialising; default false.")


class RowError(ApiModel):
    """Rejected rows of one kind."""

    code: ShortText = Field(description="Error code, e.g. MissingColumn, NoAssistantTurn, NotUTF8.")
    count: int = Field(ge=1, le=MAX_COUNT, description="Rows rejected with this code.")
    rows: Annotated[list[int], Field(max_length=10)] = Field(
        default_factory=list, description="First row numbers, from 1, over all files in order."
    )
    example: Text | None = Field(default=None, description="Message of the first, with file and line.")
    hint: ShortText | None = Field(default=None, description="What to do about rows of this kind.")


class OverContext(ApiModel):
    """Rows that a context of so many tokens cuts or leaves out."""

    context: int = Field(
        ge=1, le=MAX_COUNT, description="Tokens of the context, e.g. training.maxLength of a FineTuneJob."
    )
    rows: int = Field(ge=0, le=MAX_COUNT, description="Rows that are longer.")
    share: ShortText = Field(description="Their share, e.g. 1.2%.")


class TokenStatistics(ApiModel):
    """Length of rows. No base model is known here: the unit is UTF-8 bytes/4, named in unit."""

    unit: ShortText = Field(default="bytes/4", description="What a token is here.")
    total: int = Field(default=0, ge=0, le=MAX_COUNT, description="Sum over all rows.")
    mean: int = Field(default=0, ge=0, le=MAX_COUNT, description="Mean per row.")
    median: int = Field(default=0, ge=0, le=MAX_COUNT, description="Median per row.")
    p95: int = Field(default=0, ge=0, le=MAX_COUNT, description="95th percentile.")
    max: int = Field(default=0, ge=0, le=MAX_COUNT, description="Longest row.")
    over: Annotated[list[OverContext], Field(max_length=8)] = Field(
        default_factory=list, description="Rows longer than usual contexts."
    )


class LanguageRows(ApiModel):
    """Rows of one language, in the sample that was identified."""

    language: ShortText = Field(description="ISO 639-1, e.g. en; other: the rest; unknown: too short to tell.")
    rows: int = Field(ge=0, le=MAX_COUNT, description="Rows of the sample.")
    share: ShortText = Field(description="Their share of the sample, e.g. 98.5%.")


class SplitRows(ApiModel):
    """Rows of one split."""

    name: ShortText = Field(description="train, validation or test.")
    rows: int = Field(ge=0, le=MAX_COUNT, description="Rows.")


class DatasetUse(ApiModel):
    """What a Dataset gave to a mixture, or to an epoch of a run."""

    name: ShortText = Field(description="Name of the Dataset.")
    split: ShortText = Field(description="Its split.")
    digest: Digest | None = Field(default=None, description="Its content; of a run see datasetDigests.")
    rows: int = Field(ge=0, le=MAX_COUNT, description="Rows, repeats included; as many as the method makes of them.")
    tokens: int = Field(ge=0, le=MAX_COUNT, description="Tokens of these rows.")
    row_share: ShortText = Field(description="Share of the rows, e.g. 10.0%.")
    token_share: ShortText = Field(description="Share of the tokens, e.g. 7.2%.")
    passes: ShortText = Field(description="How often a row is used on average, e.g. 0.25.")


class Changes(ApiModel):
    """What differs from the content before."""

    previous: Digest = Field(description="Digest of the content before.")
    added: int = Field(ge=0, le=MAX_COUNT, description="Rows that were not there.")
    removed: int = Field(ge=0, le=MAX_COUNT, description="Rows that are no longer there.")


class Croissant(ApiModel):
    """What the source's Croissant metadata says, see https://docs.mlcommons.org/croissant."""

    name: ShortText | None = Field(default=None, description="Name of the data set.")
    description: Annotated[str, StringConstraints(max_length=600), Storable] | None = Field(
        default=None, description="What the data set is."
    )
    license: ShortText | None = Field(default=None, description="Licence, a URL or a name.")
    cite_as: Annotated[str, StringConstraints(max_length=600), Storable] | None = Field(
        default=None, description="How to cite it."
    )
    url: ShortText | None = Field(default=None, description="Its page.")


class DatasetFailure(ApiModel):
    """Why the Dataset is not Ready."""

    code: ShortText = Field(description="Failure code, e.g. TooManyBadRows.")
    message: Text = Field(default="", description="What happened and where.")
    hint: Text | None = Field(default=None, description="What to do.")


class DatasetStatus(ApiModel):
    """What is; written by the operator alone."""

    observed_generation: int | None = OBSERVED_GENERATION
    phase: Literal["Pending", "Materializing", "AwaitingReview", "Ready", "Failed"] | None = Field(
        default=None, description="Where the Dataset is, for people."
    )
    conditions: list[Condition] = CONDITIONS
    summary: Text | None = Field(default=None, description="What became of the rows, in one sentence.")
    advice: Annotated[list[Text], Field(max_length=16)] | None = Field(
        default=None, description="What to know before training on these rows; none of it stops the Dataset."
    )
    report: ShortText | None = Field(
        default=None,
        description="Where the whole report lies in the store: a page to read, beside it the same as JSON.",
    )
    format_detected: ShortText | None = Field(default=None, description="Format used, and for Auto why.")
    digest: Digest | None = Field(default=None, description="Digest of the materialised content.")
    revision: ShortText | None = Field(default=None, description="Commit of an hf:// source, or SHA-256 of the source.")
    uri: ShortText | None = Field(default=None, description="Where the rows lie in the store.")
    size_bytes: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Bytes of that folder: rows and report."
    )
    rows: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Valid rows.")
    splits: Annotated[list[SplitRows], Field(max_length=8)] | None = Field(default=None, description="Rows per split.")
    split_settings: ShortText | None = Field(
        default=None,
        description="Hash of the spec.splits that divided the content: a new content that is divided by the same keeps "
        "each row in its split.",
    )
    rejected: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Rejected rows.")
    errors: Annotated[list[RowError], Field(max_length=32)] | None = Field(
        default=None, description="Rejected rows by code."
    )
    duplicates: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Rows that repeat an earlier one exactly."
    )
    curation: Annotated[list[CurationStep], Field(max_length=16)] | None = Field(
        default=None, description="What each step of the curation did, in order."
    )
    tokens: TokenStatistics | None = Field(default=None, description="Length of rows.")
    languages: Annotated[list[LanguageRows], Field(max_length=8)] | None = Field(
        default=None, description="Languages of a sample of up to 2000 rows."
    )
    synthetic: SyntheticRows | None = Field(default=None, description="What became of generated rows.")
    review_pod: ReviewPod | None = Field(
        default=None, description="What a pod for the review of generated rows is made of."
    )
    mixture: Annotated[list[DatasetUse], Field(max_length=48)] | None = Field(
        default=None, description="What each part gave to each split of a mixture."
    )
    changes: Changes | None = Field(default=None, description="What the last new content changed.")
    croissant: Croissant | None = Field(default=None, description="The source's Croissant metadata, where present.")
    source_version: ShortText | None = Field(
        default=None, description="Mark of what was read: a source that has it still is not read again."
    )
    read_time: Timestamp | None = Field(
        default=None, description="When the source was last read, or found to be unchanged."
    )
    failure: DatasetFailure | None = Field(default=None, description="Why the Dataset is not Ready.")
    tries: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Materialising Jobs of this generation so far."
    )
    last_try_time: Timestamp | None = Field(default=None, description="When the last one ended.")


DATASET = Kind(
    kind="Dataset",
    plural="datasets",
    singular="dataset",
    short_name="dset",
    spec=DatasetSpec,
    status=DatasetStatus,
    columns=(
        Column("Format", ".status.formatDetected"),
        Column("Rows", ".status.rows", type="integer"),
        Column("Rejected", ".status.rejected", type="integer"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Age", ".metadata.creationTimestamp", type="date"),
        Column("Source", ".spec.source.uri", priority=1),
        Column("Digest", ".status.digest", priority=1),
        Column("Bytes", ".status.sizeBytes", type="integer", priority=1),
    ),
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
