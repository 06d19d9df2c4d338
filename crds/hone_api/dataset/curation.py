"""Curation: which valid rows are removed or redacted, in a fixed order, and the result."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.base.meta import MAX_COUNT, ApiModel, ColumnName, Name, Percent, ShortText, Text
from hone_api.base.rule import Rule


class PersonalData(StrEnum):
    """A kind of personal data; its mark in a redacted row is the name in capitals, e.g. [EMAIL]."""

    EMAIL = "Email"
    PHONE = "Phone"
    CREDIT_CARD = "CreditCard"
    IBAN = "IBAN"
    IP_ADDRESS = "IPAddress"
    SSN = "SSN"
    SECRET = "Secret"


PHONE_REGIONS = ("US", "DE", "ES", "FR", "GB")
"""Regions for national phone numbers if a Dataset names none."""
Region = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$", max_length=2)]


class Scorer(StrEnum):
    """What gives a row a score from 0% to 100%."""

    QUALITY = "Quality"
    TOXICITY = "Toxicity"
    CLASSIFIER = "Classifier"


class ScoreFilter(ApiModel):
    """Rows whose score is out of range are removed."""

    rules = (
        Rule(
            "has(self.minimum) || has(self.maximum)",
            "set minimum or maximum: the score that a row needs",
        ),
        Rule(
            "(self.scorer == 'Classifier') == has(self.modelVersion)",
            "modelVersion is for scorer Classifier, which needs it",
        ),
    )

    scorer: Scorer = Field(
        description="Quality: share of the text rules of Gopher and C4 that the row satisfies. Toxicity: probability "
        "that its worst text is offensive (English). Classifier: a sequence classifier of the store."
    )
    minimum: Percent | None = Field(default=None, description="Lowest score that is kept, e.g. 70%; default: any.")
    maximum: Percent | None = Field(default=None, description="Highest score that is kept, e.g. 50%; default: any.")
    model_version: Name | None = Field(default=None, description="ModelVersion of the classifier.")
    label: ShortText | None = Field(
        default=None, description="Label whose probability is the score; default: the classifier's last label."
    )


class NearDuplicates(ApiModel):
    """When two rows are near duplicates: their word n-grams overlap. MinHash finds pairs, exact counting confirms."""

    similarity: Percent = Field(
        default="80%", description="Lowest Jaccard similarity of the sets of word n-grams, 50% to 100%; default 80%."
    )
    ngram: int = Field(default=3, ge=1, le=32, description="Words in an n-gram; default 3.")

    rules = (
        Rule(
            "double(self.replace('%', '')) >= 50.0",
            "similarity must be at least 50%: rows that share less are not duplicates",
            of="similarity",
            one_field=True,
        ),
    )


class NamedSplit(ApiModel):
    """Rows of another Dataset that must not be in this one."""

    name: Name = Field(description="Name of a Dataset in this namespace; it must be Ready first.")
    split: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$", max_length=32)] | None = Field(
        default=None, description="Split of that Dataset, e.g. test; default: all splits."
    )


class Contamination(ApiModel):
    """Rows that contain a row of an evaluation set are removed, since they would make its score meaningless."""

    datasets: Annotated[list[NamedSplit], Field(min_length=1, max_length=16)] = Field(
        description="The evaluation sets."
    )
    ngram: int = Field(
        default=8,
        ge=3,
        le=32,
        description="Words in an n-gram; default 8. A shorter prompt of an evaluation set must occur as a whole.",
    )
    overlap: Percent = Field(
        default="20%",
        description="Share of the n-grams of an evaluation row's prompt or answer that a row must contain to be "
        "removed; default 20%. Fewer than 5 n-grams count only if they are half of a short text.",
    )


class Balance(ApiModel):
    """At most maxRows rows for each value of a column, drawn at random with the seed."""

    column: ColumnName = Field(description="Column of the source, e.g. category.")
    max_rows: int = Field(ge=1, le=1_000_000_000, description="Largest number of rows with the same value.")


class Diverse(ApiModel):
    """The rows that together best cover the data: greedy k-centre over sentence embeddings."""

    rows: int = Field(ge=1, le=100_000, description="Rows to keep.")


Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$", max_length=3)]


class Curation(ApiModel):
    """Which rows are removed or changed. The steps run in the order of these fields."""

    personal_data: Literal["Keep", "Redact", "Refuse"] = Field(
        default="Keep",
        description="What happens to personal data: Redact replaces it with a mark, Refuse removes the row. "
        "Default Keep.",
    )
    personal_data_types: Annotated[list[PersonalData], Field(min_length=1, max_length=7)] | None = Field(
        default=None, description="Kinds of personal data; default: all."
    )
    phone_regions: Annotated[list[Region], Field(max_length=32)] | None = Field(
        default=None,
        description="Countries (ISO 3166, e.g. [DE, AT]) whose phone numbers are also found in national form; numbers "
        "in international form are always found. Default: [US, DE, ES, FR, GB].",
    )
    min_tokens: int | None = Field(
        default=None,
        ge=0,
        le=10_000_000,
        description="Shortest row, in tokens as counted in status.tokens; default: any.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Longest row, in tokens; default: any."
    )
    languages: Annotated[list[Language], Field(min_length=1, max_length=32)] | None = Field(
        default=None,
        description="Languages to keep, ISO 639-1, e.g. [en, de]; rows that are too short to identify are kept. "
        "Default: any.",
    )
    scores: Annotated[list[ScoreFilter], Field(max_length=8)] | None = Field(
        default=None, description="Scores that a row needs; default: none."
    )
    deduplicate: Literal["None", "Exact", "Near"] = Field(
        default="None",
        description="Duplicates to remove; the first of each is kept. Exact: equal apart from case, white space and "
        "Unicode form. Near: as defined by nearDuplicates; rows whose questions and answers both differ are kept, "
        "e.g. several questions about one document. Default None.",
    )
    near_duplicates: NearDuplicates = Field(
        default_factory=NearDuplicates, description="When rows are near duplicates, here and for splits.nearDuplicates."
    )
    deduplicate_against: Annotated[list[NamedSplit], Field(min_length=1, max_length=16)] | None = Field(
        default=None,
        description="Datasets whose rows are removed from this one; with deduplicate: Near also edited ones.",
    )
    contamination: Contamination | None = Field(
        default=None, description="Evaluation sets whose rows must not be trained on; default: none."
    )
    balance: Balance | None = Field(
        default=None, description="Limit on rows with the same value of a column; default: none."
    )
    diverse: Diverse | None = Field(default=None, description="A diverse subset of the rows; default: all rows.")
    seed: int = Field(default=0, ge=0, le=2_147_483_647, description="Seed of random choices; default 0.")


class CurationStep(ApiModel):
    """What one step of the curation did."""

    step: ShortText = Field(description="Name of the step, e.g. NearDuplicates.")
    removed: int = Field(default=0, ge=0, le=MAX_COUNT, description="Rows removed.")
    changed: int = Field(default=0, ge=0, le=MAX_COUNT, description="Rows changed and kept, e.g. redacted.")
    other_answers: int = Field(
        default=0,
        ge=0,
        le=MAX_COUNT,
        description="Removed rows whose answer differs from that of the row that is kept.",
    )
    rows: Annotated[list[int], Field(max_length=10)] = Field(
        default_factory=list, description="First row numbers, from 1, over all files in order."
    )
    example: Text | None = Field(default=None, description="Why the first of these rows was removed or changed.")
