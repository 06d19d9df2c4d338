"""Synthesis: rows that a model generates for a Dataset, and how people verify them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from hone_api.base.meta import MAX_COUNT, ApiModel, Decimal, HttpUrl, Name, Percent, ShortText, between, uri_rules
from hone_api.base.pod_image import PodImage
from hone_api.base.rule import Rule

REVIEW = "hone.dev/review"
"""Annotation on a Dataset: what was decided by then. A value that differs from the last one materializes again."""


class Template(StrEnum):
    """What is generated, and from what."""

    SELF_INSTRUCT = "SelfInstruct"
    QUESTIONS_FROM_DOCUMENTS = "QuestionsFromDocuments"
    PARAPHRASE = "Paraphrase"
    PREFERENCE = "Preference"
    RAFT = "RAFT"


FROM_DOCUMENTS = (Template.QUESTIONS_FROM_DOCUMENTS, Template.RAFT)
"""Templates whose source has documents; the source of the others has seed rows."""

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=253)]


class Judge(ApiModel):
    """A model that scores each generated row from 1 to 5."""

    rules = uri_rules("endpoint")

    endpoint: HttpUrl | None = Field(
        default=None, description="Base URL of an OpenAI-compatible API; default: the endpoint that generates."
    )
    model: ModelName | None = Field(
        default=None, description="Name of the model there; default: the first that is served."
    )
    secret_name: Name | None = Field(
        default=None,
        description="Secret with key API_KEY; default: that of the endpoint that generates, if endpoint is not set.",
    )
    min_score: int = Field(default=4, ge=1, le=5, description="Lowest score that a row needs, 1 to 5; default 4.")


class SynthesisFilters(ApiModel):
    """Which generated rows never reach a reviewer."""

    max_similarity: Percent = Field(
        default="70%",
        description="Highest ROUGE-L similarity to a seed or an earlier generated row, as in Self-Instruct; default "
        "70%. 100% removes only exact repetitions.",
    )
    verify: bool = Field(
        default=True,
        description="Whether quotes must be in their document word for word, and a paraphrase must keep every "
        "number; default true.",
    )
    judge: Judge | None = Field(default=None, description="A model that scores rows; default: none.")


class Sampling(ApiModel):
    """Acceptance of all rows by a random sample: people review only the sample."""

    size: int = Field(ge=1, le=100_000, description="Rows in the sample.")
    max_defects: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Largest number of rejected or edited rows in a sample that passes; default 0. With more, every "
        "row must be reviewed.",
    )
    confidence: Percent = Field(
        default="95%",
        description="Confidence of the reported bound on the share of bad rows, e.g. 95%; default 95%.",
    )


class Review(ApiModel):
    """What people must decide before the rows are trained on."""

    required: bool = Field(
        default=True,
        description="True: rows wait for a review. False: rows are trained on although no person has seen them. "
        "Default true.",
    )
    accepted: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Accepted rows that make the Dataset Ready; default: once every row is decided.",
    )
    sampling: Sampling | None = Field(
        default=None, description="Accept all rows if a random sample passes; default: every row is reviewed."
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
        description="What is generated. SelfInstruct, Paraphrase: more rows like the source's; Preference: chosen "
        "and rejected answers to the source's prompts; QuestionsFromDocuments, RAFT: questions and answers from the "
        "source's documents."
    )
    endpoint: HttpUrl = Field(
        description="Base URL of an OpenAI-compatible API, e.g. http://model.team.svc:8000/v1; plain http:// only for "
        "a Service of the cluster."
    )
    model: ModelName | None = Field(
        default=None, description="Name of the model there; default: the first that is served."
    )
    secret_name: Name | None = Field(default=None, description="Secret with key API_KEY.")
    rows: int = Field(ge=1, le=10_000_000, description="Rows wanted after filters, before review.")
    instructions: Annotated[str, StringConstraints(max_length=4096)] | None = Field(
        default=None, description="What the rows are for, in your own words; part of the prompt. Default: nothing."
    )
    seed: int = Field(default=0, ge=0, le=2_147_483_647, description="Seed of all random choices; default 0.")
    temperature: Decimal = Field(default="0.7", description="Sampling temperature, 0 to 2; default '0.7'.")
    max_tokens: int = Field(default=1024, ge=1, le=131_072, description="Longest answer in tokens; default 1024.")
    parallel: int = Field(default=4, ge=1, le=256, description="Requests that run at the same time; default 4.")
    filters: SynthesisFilters = Field(
        default_factory=SynthesisFilters, description="Which rows never reach a reviewer."
    )
    review: Review = Field(default_factory=Review, description="What people must decide.")


class FilteredRows(ApiModel):
    """Generated rows that a filter removed."""

    reason: ShortText = Field(description="WrongFormat, Duplicate, NotVerified, LowScore, Truncated or Refused.")
    count: int = Field(ge=1, le=MAX_COUNT, description="Rows.")


class SyntheticRows(ApiModel):
    """Results of the generated rows."""

    generated: int = Field(default=0, ge=0, le=MAX_COUNT, description="Answers of the model.")
    filtered: Annotated[list[FilteredRows], Field(max_length=8)] = Field(
        default_factory=list, description="Answers that filters removed, by reason."
    )
    pending: int = Field(default=0, ge=0, le=MAX_COUNT, description="Rows that wait for a decision.")
    accepted: int = Field(
        default=0, ge=0, le=MAX_COUNT, description="Rows that people accepted, as they were or edited."
    )
    edited: int = Field(default=0, ge=0, le=MAX_COUNT, description="Number of accepted rows that were edited.")
    rejected: int = Field(default=0, ge=0, le=MAX_COUNT, description="Rows that people rejected.")
    conflicts: int = Field(
        default=0, ge=0, le=MAX_COUNT, description="Rows on which reviewers disagree; they count as rejected."
    )
    wanted: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Accepted rows that make the Dataset Ready."
    )
    complete: bool = Field(default=False, description="Whether the review is done, or was not required.")
    sample: ShortText | None = Field(
        default=None, description="Result of the sample, with its confidence; only for review.sampling."
    )
    folder: ShortText | None = Field(default=None, description="Folder of rows and decisions, relative to the store.")
    review: ShortText | None = Field(
        default=None, description="Value of the annotation hone.dev/review that was materialized last."
    )


class ReviewPod(PodImage):
    """What the pod of a review takes from the platform."""

    claim: ShortText = Field(description="PersistentVolumeClaim of the store.")


class Raft(ApiModel):
    """A RAFT set, built from documents and questions with answers (arXiv 2403.10131)."""

    distractors: int = Field(
        default=4,
        ge=0,
        le=100,
        description="Documents in addition to the one with the answer; default 4, as in the paper.",
    )
    without_oracle: Percent = Field(
        default="20%", description="Share of the rows without the document that has the answer; default 20%."
    )
    seed: int = Field(default=0, ge=0, le=2_147_483_647, description="Seed of the choice of documents; default 0.")
