"""Synthesis: rows that a model generates for a Dataset, and how people verify them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.meta import (
    MAX_COUNT,
    ApiModel,
    Decimal,
    HttpUrl,
    Name,
    Percent,
    Rule,
    ShortText,
    Text,
    between,
    uri_rules,
)

REVIEW = "hone.dev/review"
"""Annotation on a Dataset: what was decided by then. Another value than the last one materialises anew."""


class Template(StrEnum):
    """What is generated, and from what."""

    SELF_INSTRUCT = "SelfInstruct"
    QUESTIONS_FROM_DOCUMENTS = "QuestionsFromDocuments"
    PARAPHRASE = "Paraphrase"
    PREFERENCE = "Preference"
    RAFT = "RAFT"


FROM_DOCUMENTS = (Template.QUESTIONS_FROM_DOCUMENTS, Template.RAFT)
"""Templates whose source holds documents; the others' holds seed rows."""

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=253)]


class Judge(ApiModel):
    """A model that scores each generated row from 1 to 5."""

    rules = uri_rules("endpoint")

    endpoint: HttpUrl | None = Field(
        default=None, description="Base URL of an OpenAI-compatible API; default: the generating one."
    )
    model: ModelName | None = Field(default=None, description="Its name there; default: the first that is served.")
    secret_name: Name | None = Field(
        default=None, description="Secret with key API_KEY; default: the generating one's when endpoint is not set."
    )
    min_score: int = Field(default=4, ge=1, le=5, description="Least score that a row needs, 1 to 5; default 4.")


class SynthesisFilters(ApiModel):
    """Which generated rows never reach a reviewer."""

    max_similarity: Percent = Field(
        default="70%",
        description="Largest ROUGE-L with a seed or with a row generated before, as in Self-Instruct; default 70%. "
        "100% keeps all but exact repetitions.",
    )
    verify: bool = Field(
        default=True,
        description="Whether quotes must be in their document word for word, and a paraphrase must keep every "
        "number; default true.",
    )
    judge: Judge | None = Field(default=None, description="A model that scores rows; default: none.")


class Sampling(ApiModel):
    """Acceptance of all rows by a random sample: people decide on the sample alone."""

    size: int = Field(ge=1, le=100_000, description="Rows in the sample.")
    max_defects: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Most rejected or edited rows in a sample that passes; default 0. Beyond it every row is reviewed.",
    )
    confidence: Percent = Field(
        default="95%",
        description="Confidence of the bound that is stated for the share of bad rows, e.g. 95%; default 95%.",
    )


class Review(ApiModel):
    """What people must decide before the rows are trained on."""

    required: bool = Field(
        default=True, description="False trains on rows that no person has seen; default true, and rows wait."
    )
    accepted: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Accepted rows that make the Dataset Ready; default: once every row is decided on.",
    )
    sampling: Sampling | None = Field(
        default=None, description="Accept all rows when a random sample passes; default: every row is reviewed."
    )


class Synthesis(ApiModel):
    """Rows generated from the source's rows or documents, trained on only after human review."""

    rules = (
        *uri_rules("endpoint"),
        between("temperature", "at least 0 and at most 2", ">= 0.0", "<= 2.0", "0.7"),
        Rule(
            "!has(self.review) || !has(self.review.sampling) || self.review.required",
            "review.sampling is for rows that are reviewed: remove it, or set review.required to true",
        ),
        Rule(
            "!has(self.review) || !has(self.review.sampling) || !has(self.review.accepted)",
            "set review.accepted or review.sampling, not both: a sample accepts all rows",
        ),
    )

    template: Template = Field(
        description="What is generated. SelfInstruct, Paraphrase: further rows like the source's; Preference: chosen "
        "and rejected answers to the source's prompts; QuestionsFromDocuments, RAFT: questions and answers from the "
        "source's documents."
    )
    endpoint: HttpUrl = Field(
        description="Base URL of an OpenAI-compatible API, e.g. http://model.team.svc:8000/v1; plain http:// to a "
        "Service of the cluster only."
    )
    model: ModelName | None = Field(default=None, description="Its name there; default: the first that is served.")
    secret_name: Name | None = Field(default=None, description="Secret with key API_KEY.")
    rows: int = Field(ge=1, le=10_000_000, description="Rows wanted after filters, before review.")
    instructions: Annotated[str, StringConstraints(max_length=4096)] | None = Field(
        default=None, description="What the rows are for, in your words; told to the model. Default: nothing."
    )
    seed: int = Field(default=0, ge=0, le=2_147_483_647, description="Seed of all choices; default 0.")
    temperature: Decimal = Field(default="0.7", description="Sampling temperature, 0 to 2; default 0.7.")
    max_tokens: int = Field(default=1024, ge=1, le=131_072, description="Longest answer in tokens; default 1024.")
    parallel: int = Field(default=4, ge=1, le=256, description="Requests at a time; default 4.")
    filters: SynthesisFilters = Field(
        default_factory=SynthesisFilters, description="Which rows never reach a reviewer."
    )
    review: Review = Field(default_factory=Review, description="What people must decide.")


class FilteredRows(ApiModel):
    """Generated rows that a filter removed."""

    reason: ShortText = Field(description="WrongFormat, Duplicate, NotVerified, LowScore, Truncated or Refused.")
    count: int = Field(ge=1, le=MAX_COUNT, description="Rows.")


class SyntheticRows(ApiModel):
    """What became of the generated rows."""

    generated: int = Field(default=0, ge=0, le=MAX_COUNT, description="Answers of the model.")
    filtered: Annotated[list[FilteredRows], Field(max_length=8)] = Field(
        default_factory=list, description="Answers that filters removed, by reason."
    )
    pending: int = Field(default=0, ge=0, le=MAX_COUNT, description="Rows that wait for a decision.")
    accepted: int = Field(
        default=0, ge=0, le=MAX_COUNT, description="Rows that people accepted, as they were or edited."
    )
    edited: int = Field(default=0, ge=0, le=MAX_COUNT, description="Of these, edited ones.")
    rejected: int = Field(default=0, ge=0, le=MAX_COUNT, description="Rows that people rejected.")
    conflicts: int = Field(
        default=0, ge=0, le=MAX_COUNT, description="Rows on which reviewers disagree; they count as rejected."
    )
    wanted: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Accepted rows that make the Dataset Ready."
    )
    complete: bool = Field(default=False, description="Whether the review is done, or was not asked for.")
    sample: ShortText | None = Field(
        default=None, description="What the sample says, with the confidence of it; only for review.sampling."
    )
    folder: ShortText | None = Field(default=None, description="Where rows and decisions lie, below the store.")
    review: ShortText | None = Field(
        default=None, description="Value of the annotation hone.dev/review that was materialised last."
    )


class ReviewPod(ApiModel):
    """What the pod of a review takes from the platform. The operator writes it; a Job or a pod of a tenant cannot."""

    image: Text = Field(description="The trainer's image.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When the image is pulled."
    )
    image_pull_secrets: Annotated[list[ShortText], Field(max_length=16)] = Field(
        default_factory=list, description="Secrets of the namespace for the image's registry."
    )
    claim: ShortText = Field(description="PersistentVolumeClaim of the store.")


class Raft(ApiModel):
    """A RAFT set, built from documents and questions with answers (arXiv 2403.10131)."""

    distractors: int = Field(
        default=4, ge=0, le=100, description="Documents beside the one that answers; default 4, as in the paper."
    )
    without_oracle: Percent = Field(
        default="20%", description="Share of the rows that lack the document that answers; default 20%."
    )
    seed: int = Field(default=0, ge=0, le=2_147_483_647, description="Seed of the choice of documents; default 0.")
