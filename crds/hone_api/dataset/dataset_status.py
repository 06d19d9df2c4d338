"""Status of the Dataset."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from hone_api.base.meta import (
    CONDITIONS,
    MAX_COUNT,
    OBSERVED_GENERATION,
    ApiModel,
    Column,
    Condition,
    Digest,
    ShortText,
    Storable,
    Text,
    Timestamp,
)
from hone_api.dataset.curation import CurationStep
from hone_api.dataset.synthesis import ReviewPod, SyntheticRows
from hone_api.words.states import DatasetPhase


class RowErrorCount(ApiModel):
    """Rejected rows of one kind."""

    code: ShortText = Field(description="Error code, e.g. MissingColumn, NoAssistantTurn, NotUTF8.")
    count: int = Field(ge=1, le=MAX_COUNT, description="Rows rejected with this code.")
    rows: Annotated[list[int], Field(max_length=10)] = Field(
        default_factory=list, description="First row numbers, from 1, over all files in order."
    )
    example: Text | None = Field(default=None, description="Message of the first, with file and line.")
    hint: ShortText | None = Field(default=None, description="What to do about rows of this kind.")


class NotReadReason(StrEnum):
    """Why a file of a source is not read."""

    DESCRIPTION = "Description"
    EMPTY = "Empty"
    HIDDEN = "Hidden"
    NOT_CHOSEN = "NotChosen"
    NOT_LISTED = "NotListed"
    OTHER_SPLIT = "OtherSplit"
    PAGE = "Page"
    SAME_FILE = "SameFile"
    UNKNOWN_KIND = "UnknownKind"


class NotReadFiles(ApiModel):
    """Files of the source that are not read, for one reason."""

    reason: ShortText = Field(
        description="Description: it describes the data, such as README.md; Empty: no byte; Hidden: the name begins "
        "with a dot, or the folder is for temporary files; NotChosen: no match in source.files; NotListed: the list of "
        "files next to it (state.json of datasets) leaves it out; OtherSplit: of another split or configuration, by "
        "the card or by its name; Page: Markdown next to files of rows; SameFile: another name, by a link, of what is "
        "read; UnknownKind: not a kind of file that is read."
    )
    count: int = Field(ge=1, le=MAX_COUNT, description="Files, or folders that are not looked into (name/).")
    first: Annotated[list[ShortText], Field(max_length=5)] = Field(
        default_factory=list, description="The first names, sorted, relative to the source."
    )


class OverContext(ApiModel):
    """Rows that a context of this many tokens truncates or leaves out."""

    context: int = Field(
        ge=1, le=MAX_COUNT, description="Tokens of the context, e.g. training.maxLength of a FineTuneJob."
    )
    rows: int = Field(ge=0, le=MAX_COUNT, description="Rows that are longer.")
    share: ShortText = Field(description="Share of these rows, e.g. 1.2%.")


class TokenStatistics(ApiModel):
    """Length of rows. No base model is known yet, so the unit is UTF-8 bytes/4, see unit."""

    unit: ShortText = Field(default="bytes/4", description="Unit of these numbers.")
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
    rows: int = Field(ge=0, le=MAX_COUNT, description="Rows in the sample.")
    share: ShortText = Field(description="Share of the sample, e.g. 98.5%.")


class SplitRows(ApiModel):
    """Rows of one split."""

    name: ShortText = Field(description="train, validation or test.")
    rows: int = Field(ge=0, le=MAX_COUNT, description="Rows.")


class DatasetUse(ApiModel):
    """What a Dataset contributed to a mixture, or to an epoch of a run."""

    name: ShortText = Field(description="Name of the Dataset.")
    split: ShortText = Field(description="Split of the Dataset.")
    digest: Digest | None = Field(default=None, description="Digest of its content; for a run see datasetDigests.")
    rows: int = Field(ge=0, le=MAX_COUNT, description="Rows, including repetitions, as counted by the method.")
    tokens: int = Field(ge=0, le=MAX_COUNT, description="Tokens of these rows.")
    row_share: ShortText = Field(description="Share of the rows, e.g. 10.0%.")
    token_share: ShortText = Field(description="Share of the tokens, e.g. 7.2%.")
    passes: ShortText = Field(description="How often a row is used on average, e.g. 0.25.")


class Changes(ApiModel):
    """Differences from the previous content."""

    previous: Digest = Field(description="Digest of the previous content.")
    added: int = Field(ge=0, le=MAX_COUNT, description="Rows that are new.")
    removed: int = Field(ge=0, le=MAX_COUNT, description="Rows that are no longer there.")


class SharedRows(ApiModel):
    """What this Dataset and another one of the namespace had in common when this one was made."""

    name: ShortText = Field(description="Name of the other Dataset.")
    digest: Digest = Field(description="Digest of its content that was compared.")
    rows: int = Field(ge=0, le=MAX_COUNT, description="Rows that the other one has as well, character for character.")
    questions: int = Field(
        ge=0,
        le=MAX_COUNT,
        description="Rows whose question the other one has as well, apart from case, white space and Unicode form; of "
        "documents, rows.",
    )
    crossing: int = Field(
        default=0,
        ge=0,
        le=MAX_COUNT,
        description="Of questions, those in train here and held out there, or held out here and in train there.",
    )


class Croissant(ApiModel):
    """The source's Croissant metadata, see https://docs.mlcommons.org/croissant."""

    name: ShortText | None = Field(default=None, description="Name of the data set.")
    description: Annotated[str, StringConstraints(max_length=600), Storable] | None = Field(
        default=None, description="What the data set is."
    )
    license: ShortText | None = Field(default=None, description="Licence, a URL or a name.")
    cite_as: Annotated[str, StringConstraints(max_length=600), Storable] | None = Field(
        default=None, description="How to cite it."
    )
    url: ShortText | None = Field(default=None, description="Web page of the data set.")


class DatasetFailure(ApiModel):
    """Why the Dataset is not Ready."""

    code: ShortText = Field(description="Failure code, e.g. TooManyBadRows.")
    message: Text = Field(default="", description="What happened and where.")
    hint: Text | None = Field(default=None, description="What to do.")


class DatasetStatus(ApiModel):
    """Current state; written only by the operator."""

    observed_generation: int | None = OBSERVED_GENERATION
    phase: DatasetPhase | None = Field(default=None, description="State of the Dataset, for display.")
    conditions: list[Condition] = CONDITIONS
    summary: Text | None = Field(default=None, description="Result of validation, in one sentence.")
    advice: Annotated[list[Text], Field(max_length=16)] | None = Field(
        default=None, description="Advice before training on these rows; it never stops the Dataset."
    )
    report: ShortText | None = Field(
        default=None,
        description="Path of the complete report in the store: a web page, with the same content as JSON next to it.",
    )
    format_detected: ShortText | None = Field(default=None, description="Format used and, for Auto, why.")
    digest: Digest | None = Field(default=None, description="Digest of the materialized content.")
    revision: ShortText | None = Field(
        default=None,
        description="Commit of an hf:// source; else a SHA-256: of the files, or of their names, sizes and ETags where "
        "they are read from a server without spec.source.sha256.",
    )
    uri: ShortText | None = Field(default=None, description="Folder of the rows in the store.")
    size_bytes: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Bytes of that folder: rows and report."
    )
    rows: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Valid rows.")
    splits: Annotated[list[SplitRows], Field(max_length=8)] | None = Field(default=None, description="Rows per split.")
    split_settings: ShortText | None = Field(
        default=None,
        description="Hash of the spec.splits that split the content: with the same settings, new content keeps each "
        "row in its split.",
    )
    rejected: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Rejected rows.")
    errors: Annotated[list[RowErrorCount], Field(max_length=32)] | None = Field(
        default=None, description="Rejected rows by code."
    )
    not_read: Annotated[list[NotReadFiles], Field(max_length=16)] | None = Field(
        default=None, description="Files of the source that are not read, by the reason."
    )
    duplicates: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Rows that repeat an earlier one exactly."
    )
    curation: Annotated[list[CurationStep], Field(max_length=16)] | None = Field(
        default=None, description="What each step of the curation did, in order."
    )
    shared_rows: Annotated[list[SharedRows], Field(max_length=16)] | None = Field(
        default=None,
        description="Datasets of the namespace that had rows or questions of this one when it was made, most first.",
    )
    tokens: TokenStatistics | None = Field(default=None, description="Length of rows.")
    languages: Annotated[list[LanguageRows], Field(max_length=8)] | None = Field(
        default=None, description="Languages of a sample of up to 500 rows; 2000 where checks.languages is set."
    )
    synthetic: SyntheticRows | None = Field(default=None, description="Results of generated rows.")
    review_pod: ReviewPod | None = Field(
        default=None, description="Settings of the pod in which people read rows, and review generated ones."
    )
    upload_pod: ReviewPod | None = Field(
        default=None, description="Settings of the pod that copies rows to a volume, while spec.suspend is true."
    )
    mixture: Annotated[list[DatasetUse], Field(max_length=48)] | None = Field(
        default=None, description="What each part contributed to each split of a mixture."
    )
    changes: Changes | None = Field(default=None, description="What the last new content changed.")
    croissant: Croissant | None = Field(default=None, description="The source's Croissant metadata, where present.")
    source_version: ShortText | None = Field(
        default=None, description="Fingerprint of what was read: a source with the same fingerprint is not read again."
    )
    read_time: Timestamp | None = Field(
        default=None, description="When the source was last read, or found to be unchanged."
    )
    failure: DatasetFailure | None = Field(default=None, description="Why the Dataset is not Ready.")
    tries: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Number of materializing Jobs of this generation so far."
    )
    last_try_time: Timestamp | None = Field(default=None, description="When the last of them ended.")


COLUMNS = (
    Column("Format", ".status.formatDetected"),
    Column("Rows", ".status.rows", type="integer"),
    Column("Rejected", ".status.rejected", type="integer"),
    Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
    Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
    Column("Age", ".metadata.creationTimestamp", type="date"),
    Column("Source", ".spec.source.uri", priority=1),
    Column("Digest", ".status.digest", priority=1),
    Column("Bytes", ".status.sizeBytes", type="integer", priority=1),
)
"""What `kubectl get` shows; those with a priority only with `-o wide`."""
