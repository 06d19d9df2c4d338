"""When the job of a Model is repeated on new rows or a new base, and what the operator knows about that."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hone_api.base.meta import (
    MAX_COUNT,
    ApiModel,
    Digest,
    Duration,
    KnownUri,
    Name,
    Percent,
    ShortText,
    Text,
    Timestamp,
)
from hone_api.base.rule import Rule
from hone_api.dataset.dataset import Refresh

RETRAIN_REQUESTED = "hone.dev/retrain-requested-at"
"""Annotation of a Model: the time from which on any new row is enough to repeat its job once."""


class RetrainRows(ApiModel):
    """How many rows must have changed. New and removed rows count; a row that was edited counts as both."""

    rules = (
        Rule(
            "has(self.atLeast) != has(self.share)",
            "set exactly one of atLeast and share, e.g. atLeast: 500",
        ),
    )
    at_least: int | None = Field(default=None, ge=1, le=MAX_COUNT, description="Number of rows. Alternative: share.")
    share: Percent | None = Field(
        default=None, description="Percentage of the present rows, e.g. 10%. Alternative: atLeast."
    )


class RetrainBase(ApiModel):
    """Train when the base that the repeated job names has another commit or version than the last job started from."""

    check_every: Duration = Field(
        default="24h",
        description="Time from one check of the hub to the next, up to a tenth longer; at least 1h. A short Job asks "
        "which commit a branch or tag of hf:// names; it downloads nothing. An alias (models://name@alias) needs no "
        "Job. Default 24h.",
    )


class Retrain(ApiModel):
    """When a job of this model is repeated on new rows. One job at a time; the operator creates and owns the jobs.

    Without rows, times and base, only a request starts a job: annotation hone.dev/retrain-requested-at.
    """

    fine_tune_job: Name = Field(
        description="FineTuneJob of the namespace whose spec is repeated, on the present content of its Datasets. It "
        "must make a model of this name, and must not be deleted while it is named here. To start from the champion, "
        "let its spec.model.uri be models://<this model>@<alias>."
    )
    rows: RetrainRows | None = Field(
        default=None, description="Train when this many rows changed since the last job. Default: rows do not count."
    )
    times: Refresh | None = Field(
        default=None,
        description="Train at these times if any row changed, however few. every counts from the last job. Default: "
        "none.",
    )
    base: RetrainBase | None = Field(
        default=None,
        description="Train when the base is another one, also on unchanged rows. Default: it does not count.",
    )
    min_interval: Duration = Field(
        default="24h", description="Minimum time from the start of one job of this model to the next. Default 24h."
    )
    quiet_period: Duration = Field(
        default="10m", description="How long the Datasets must be unchanged before a job starts. Default 10m."
    )
    max_wait: Duration | None = Field(
        default=None,
        description="How long a job that is due waits for quietPeriod at most: then it trains on the rows that there "
        "are, although they change. Default: 10 times quietPeriod.",
    )
    gpu_hours_per_month: int | None = Field(
        default=None,
        ge=0,
        le=MAX_COUNT,
        description="GPU hours of the jobs that this creates, in a calendar month of UTC, without the time in a queue: "
        "once they are used, no job is created before the next month. A job that runs is not stopped. Default: no "
        "limit.",
    )
    successful_jobs_history_limit: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="How many of the newest successful jobs that this creates are kept. Older ones are deleted, their "
        "versions stay. Kept in any case: the last job, a job from whose model an unfinished or a repeated job starts, "
        "with gpuHoursPerMonth those that used GPUs in this month, and with a budget of the repeated job all that used "
        "GPUs. Default: none is deleted.",
    )
    failed_jobs_history_limit: int | None = Field(
        default=None, ge=0, le=1000, description="The same for failed jobs. Default: none is deleted."
    )
    suspend: bool = Field(default=False, description="True: create no job. Default false.")


class RetrainDataset(ApiModel):
    """What changed in a Dataset since a job trained on it."""

    name: Name = Field(description="Name of the Dataset.")
    digest: Digest = Field(description="Digest of its present content.")
    trained: Digest = Field(description="Digest of the content that the last job started with.")
    changed_rows: int = Field(ge=0, le=MAX_COUNT, description="Rows that were added or removed in between.")
    changed_at: Timestamp | None = Field(default=None, description="When the operator last saw new content.")


class RetrainBaseStatus(ApiModel):
    """What the base of the repeated job names, and what the last job started from."""

    uri: KnownUri = Field(description="spec.model.uri of the repeated job.")
    present: ShortText | None = Field(default=None, description="Commit or ModelVersion that it names now.")
    trained: ShortText | None = Field(default=None, description="The one that the newest job started from.")
    looked_at: Timestamp | None = Field(default=None, description="When the hub was asked last.")
    problem: Text | None = Field(default=None, description="Why the last check gave no answer.")


class RetrainStatus(ApiModel):
    """What spec.retrain depends on; condition UpToDate has the result."""

    datasets: Annotated[list[RetrainDataset], Field(max_length=32)] = Field(
        default_factory=list, description="The Datasets of the repeated job."
    )
    base: RetrainBaseStatus | None = Field(default=None, description="The base, with spec.retrain.base.")
    requested_at: Timestamp | None = Field(
        default=None,
        description="Annotation hone.dev/retrain-requested-at, while no job was created since.",
    )
    due_since: Timestamp | None = Field(
        default=None, description="Since when a job is due that waits for quietPeriod, minInterval or the budget."
    )
    last_job: Name | None = Field(default=None, description="The job that was created last.")
    last_start: Timestamp | None = Field(default=None, description="When the newest job of this model was created.")
    succeeded: bool | None = Field(
        default=None,
        description="Whether a job on the rows and the base that count as trained made a model. Default: not known.",
    )
    gpu_seconds: int | None = Field(
        default=None,
        ge=0,
        le=MAX_COUNT,
        description="GPU seconds that attempts held in this month, of the created jobs that exist.",
    )
