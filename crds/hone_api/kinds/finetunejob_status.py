"""Status of a FineTuneJob, written only by the operator."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from hone_api.base.meta import (
    CONDITIONS,
    MAX_COUNT,
    OBSERVED_GENERATION,
    ApiModel,
    Column,
    Condition,
    Name,
    ShortText,
    Text,
    Timestamp,
)
from hone_api.blocks.tracking import TrackedRun
from hone_api.kinds.resolved import EncodingKey, Resolved
from hone_api.words.phases import OF_STAGE, AttemptPhases
from hone_api.words.progress_numbers import MOST_METRICS, ProgressNumbers
from hone_api.words.states import AttemptOutcome, JobPhase

EarlierSeconds = Annotated[dict[str, Annotated[int, Field(ge=0, le=MAX_COUNT)]], Field(max_length=32)]


class JobProgress(ProgressNumbers[ShortText]):
    """Progress of the current attempt; before the first one, of the Job that encodes the rows."""

    percent: int = Field(
        default=0, ge=0, le=100, description="Steps done, percent; before the first attempt, rows encoded."
    )
    metrics: Annotated[dict[str, ShortText], Field(max_length=MOST_METRICS)] | None = Field(
        default=None, description="Latest values of the method's own metrics, e.g. reward_accuracy, eval_perplexity."
    )
    eta: ShortText | None = Field(
        default=None,
        description="Estimated time to the end of the current stage, e.g. 8m; in Training, to the end of the steps.",
    )
    stage: ShortText | None = Field(
        default=None,
        description=f"Activity of the trainer: {', '.join(OF_STAGE)}.",
    )
    summary: ShortText | None = Field(
        default=None,
        description="Steps and percent in words, e.g. 412/1000 41%; before the first step the activity of the pods, "
        "e.g. Evaluating base 7/24 rows; before the first attempt the rows that a Job has encoded, e.g. rows "
        "40000/86700 46%.",
    )
    last_updated_time: Timestamp | None = Field(default=None, description="When the trainer last reported.")


class MetricPoint(ApiModel):
    """One point of a curve."""

    step: int = Field(ge=0, le=MAX_COUNT, description="Optimiser step.")
    value: ShortText = Field(description="Value as a decimal string; 'nan' can occur.")


MAX_CURVE = 64 * 32
"""64 points: a step of at most 16 digits, a value of at most six significant ones with its exponent."""


class MetricSeries(ApiModel):
    """A decimated curve; the full one is in the artifact. One line of text, so that `kubectl describe` stays short."""

    name: ShortText = Field(description="loss, eval_loss, learning_rate, …")
    curve: Annotated[str, StringConstraints(max_length=MAX_CURVE)] | None = Field(
        default=None,
        description="step:value of at most 64 points, e.g. '10:3.935 20:3.412'; older points are thinned out. 'nan' "
        "can occur.",
    )
    points: Annotated[list[MetricPoint], Field(max_length=64)] | None = Field(
        default=None, description="The same points as a list, written by earlier versions."
    )


class MemoryTerm(ApiModel):
    """A part of the estimate."""

    name: ShortText = Field(description="weights, optimizer, gradients, activations, …")
    bytes: int = Field(ge=0, le=MAX_COUNT, description="Bytes on one rank.")


class Memory(ApiModel):
    """Memory of one pod in bytes; GPU memory if it has GPUs."""

    estimated: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Estimated peak, bytes.")
    terms: Annotated[list[MemoryTerm], Field(max_length=16)] | None = Field(
        default=None, description="Terms of the estimate for one rank, largest first."
    )
    peak: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Measured peak, bytes.")


class SecondsRange(ApiModel):
    """A time that is known as a range, seconds."""

    low: int = Field(ge=1, le=MAX_COUNT, description="The shortest that is likely.")
    high: int = Field(ge=1, le=MAX_COUNT, description="The longest that is likely.")


class Attempt(ApiModel):
    """One Indexed Job of the run."""

    number: int = Field(ge=1, le=MAX_COUNT, description="1 for the first attempt.")
    job_name: ShortText = Field(description="Name of the batch/v1 Job.")
    start_time: Timestamp | None = Field(default=None, description="When the Job was created.")
    end_time: Timestamp | None = Field(default=None, description="When the attempt ended.")
    outcome: AttemptOutcome = Field(default=AttemptOutcome.RUNNING, description="How the attempt ended.")
    reason: ShortText | None = Field(default=None, description="Failure code.")
    start_step: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Step that the attempt resumed from.")
    end_step: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Last step that the attempt reported.")
    lost_steps: int | None = Field(
        default=None,
        ge=0,
        le=MAX_COUNT,
        description="Steps reported before that were trained again, since there was no later checkpoint.",
    )
    micro_batch_limit: int | None = Field(
        default=None,
        ge=1,
        le=MAX_COUNT,
        description="Most rows of a forward pass in this attempt, because an earlier one ran out of memory.",
    )
    micro_batch_size: int | None = Field(
        default=None,
        ge=2,
        le=MAX_COUNT,
        description="Rows of the forward pass in which the memory ran out: the next attempt has at most half as many.",
    )
    learning_rate_halvings: int | None = Field(
        default=None,
        ge=1,
        le=MAX_COUNT,
        description="How often the learning rate had been halved, because the loss of earlier attempts diverged.",
    )
    faulty_nodes: Annotated[list[ShortText], Field(max_length=16)] | None = Field(
        default=None,
        description="Nodes of a failed attempt that had a fault when it ended, by their conditions. Later attempts "
        "avoid them, if there are others.",
    )
    nodes: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Pods of the attempt, where resources.minNodes permits several numbers.",
    )
    next_nodes: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Pods of the next attempt, because not all of this one's found a node in time.",
    )
    phase_seconds: AttemptPhases | None = Field(default=None, description="Where the time of the attempt went.")
    phases: EarlierSeconds | None = Field(default=None, description="Earlier name of phaseSeconds; read, not written.")
    idle_since: Timestamp | None = Field(default=None, description="Up to when phases count a time without pods.")
    held_seconds_before_first_step: int | None = Field(
        default=None,
        ge=0,
        le=MAX_COUNT,
        description="Seconds from the start of the first container to the first step, times the GPUs of the attempt; "
        "without GPUs, the seconds alone. If there was no step, until the attempt ended.",
    )


class Badput(ApiModel):
    """Seconds of a run in which no step was trained that counts, by what it waited for."""

    queue: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="In a queue, and for a node. Seconds.")
    image: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="For volumes and image. Seconds.")
    loading: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Libraries, model, checkpoint, rows to tokens. Seconds."
    )
    first_step: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="The first step of each attempt, with what is compiled. Seconds."
    )
    evaluation: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Evaluation before, during and after training. Seconds."
    )
    saving: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Checkpoints. Seconds.")
    lost_steps: int | None = Field(
        default=None,
        ge=0,
        le=MAX_COUNT,
        description="Steps that were trained again by a later attempt, at the mean step time of the attempt that lost "
        "them. Seconds.",
    )
    restart: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Between the end of an attempt and the next one. Seconds."
    )
    exporting: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Writing the model. Seconds.")
    other: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="The rest, e.g. pods that stop. Seconds.")


class EarlierAttempts(ApiModel):
    """Attempts that status.attempts has no room for."""

    number: int = Field(ge=1, le=MAX_COUNT, description="How many there were.")
    failed: int = Field(ge=0, le=MAX_COUNT, description="Of them, those that count towards restarts.maxRestarts.")
    preempted: int = Field(ge=0, le=MAX_COUNT, description="How many of them count towards restarts.maxPreemptions.")
    queued_seconds: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="How long they waited in a queue after status.startTime."
    )


class Goodput(ApiModel):
    """How much of the time of all attempts went into steps that count. A suspension by spec.suspend is left out."""

    ratio: ShortText = Field(description="scheduling times runtime, from 0.000 to 1.000.")
    scheduling: ShortText = Field(description="Share of the time in which the run had its nodes.")
    runtime: ShortText = Field(description="Share of that time in which it trained steps that count.")
    seconds: int = Field(ge=0, le=MAX_COUNT, description="Time of all attempts, with the waits between them.")
    productive_seconds: int = Field(ge=0, le=MAX_COUNT, description="Time in steps that count.")
    badput_seconds: Badput | None = Field(default=None, description="The rest of the time.")
    badput: EarlierSeconds | None = Field(default=None, description="Earlier name of badputSeconds; read, not written.")


class Queue(ApiModel):
    """Place of an attempt in its queue: what Kueue's Workload says; without Kueue, in the line of its namespace."""

    name: ShortText | None = Field(
        default=None, description="LocalQueue, in the namespace of the job; absent in the line of a namespace."
    )
    cluster_queue: ShortText | None = Field(
        default=None, description="ClusterQueue whose quota the attempt has; absent while it waits."
    )
    workload: ShortText | None = Field(
        default=None, description="Name of the Workload; absent until Kueue has made it."
    )
    reason: ShortText = Field(
        description="Admitted, or why not in Kueue's words, e.g. Pending, Inadmissible, Preempted, AdmissionChecks; "
        "MaxActiveJobs in the line of a namespace (tenants.maxActiveJobs of the chart)."
    )
    position: int | None = Field(
        default=None,
        ge=1,
        le=MAX_COUNT,
        description="Place in the line of a namespace, 1 for the next; renewed every few minutes.",
    )
    message: Text = Field(default="", description="Why it waits, e.g. which resource has too little quota left.")
    since: Timestamp | None = Field(default=None, description="When the attempt entered this state.")
    priority: int | None = Field(default=None, description="Priority in the queue.")
    evictions: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="How often Kueue withdrew the quota of this attempt."
    )


class JobFailure(ApiModel):
    """Why the run failed, with enough detail to start fixing it without another command."""

    code: ShortText = Field(description="Failure code, e.g. OutOfMemory.")
    message: Text = Field(default="", description="What happened and where.")
    hint: Text | None = Field(default=None, description="What to do.")
    rank: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Rank that failed first.")
    pod: ShortText | None = Field(default=None, description="Pod of that rank.")
    exit_code: int | None = Field(default=None, description="Exit code of that pod.")
    log_tail: Annotated[str, StringConstraints(max_length=8192)] | None = Field(
        default=None, description="Last lines of that pod's log."
    )


class Encoding(ApiModel):
    """Encoding of the rows before the first attempt. While it is underway, `status.progress` says how far it is."""

    work: ShortText = Field(description="Label hone.dev/content of the Job that encodes. Equal rows share it.")
    keys: Annotated[list[EncodingKey], Field(max_length=32)] = Field(
        description="Folders of encoded/ in the store, one for each split."
    )
    rows: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Examples of all splits, once encoded.")
    tokens: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Their tokens.")
    tokens_per_second: ShortText | None = Field(default=None, description="Tokens encoded per second.")


class FineTuneJobStatus(ApiModel):
    """Current state; written only by the operator."""

    observed_generation: int | None = OBSERVED_GENERATION
    phase: JobPhase | None = Field(default=None, description="State of the job, for display.")
    reason: ShortText | None = Field(
        default=None,
        description="Why the job waits or failed, e.g. DatasetNotReady; absent if phase is enough. The message is in "
        "the condition Ready.",
    )
    conditions: list[Condition] = CONDITIONS
    progress: JobProgress | None = Field(
        default=None,
        description="Progress of the current attempt; before the first one, of the Job that encodes the rows.",
    )
    metrics: Annotated[list[MetricSeries], Field(max_length=16)] | None = Field(
        default=None, description="Decimated curves."
    )
    encoding: Encoding | None = Field(
        default=None, description="Encoding of the rows before the first attempt; absent where the run encodes them."
    )
    resolved: Resolved | None = Field(default=None, description="Values that Hone chose or pinned.")
    base_model_version: Name | None = Field(
        default=None,
        description="ModelVersion to which the alias in spec.model.uri pointed when the job was accepted. Where it "
        "points later does not change this.",
    )
    memory: Memory | None = Field(default=None, description="Memory of one pod.")
    estimated_seconds: int | None = Field(
        default=None,
        ge=1,
        le=MAX_COUNT,
        description="Estimated time of the training steps on the slowest of resources.gpuProducts, without evaluation, "
        "set before the first attempt. Rough: it assumes 17 % (0.6B weights) to 41 % (8B and more) of the peak of the "
        "GPU's data sheet. Absent on CPUs, for a GPU that Hone does not know, and for methods that sample answers "
        "(PPO, GRPO).",
    )
    estimated_seconds_range: SecondsRange | None = Field(
        default=None,
        description="The shortest and the longest time of the training steps that is likely, without evaluation. "
        "Before the first attempt: over all of resources.gpuProducts, and absent where estimatedSeconds is. From the "
        "fourth step of an attempt on, it is computed from the mean time of the attempt's steps, on a CPU and for PPO "
        "and GRPO also.",
    )
    attempts: Annotated[list[Attempt], Field(max_length=128)] | None = Field(
        default=None,
        description="Attempts, oldest first; only the newest 128. earlierAttempts counts the others.",
    )
    earlier_attempts: EarlierAttempts | None = Field(
        default=None, description="Attempts before those; absent up to 128 attempts."
    )
    goodput: Goodput | None = Field(
        default=None, description="How much of the time so far went into steps that count; absent before the first."
    )
    queue: Queue | None = Field(
        default=None,
        description="Place of the newest attempt in its queue, as Kueue reports it; without Kueue, in the line of jobs "
        "that wait for tenants.maxActiveJobs.",
    )
    tracking: TrackedRun | None = Field(
        default=None, description="The run of this job in its tracker; absent until the trainer has reported it."
    )
    failure: JobFailure | None = Field(default=None, description="Why the run failed.")
    model_version_name: ShortText | None = Field(
        default=None, description="Name of the ModelVersion that the run made."
    )
    start_time: Timestamp | None = Field(default=None, description="When the first attempt started.")
    completion_time: Timestamp | None = Field(default=None, description="When the job ended.")


COLUMNS = (
    Column("Phase", ".status.phase"),
    Column("Reason", ".status.reason"),
    Column("Progress", ".status.progress.summary"),
    Column("Loss", ".status.progress.loss"),
    Column("ETA", ".status.progress.eta"),
    Column("Model", ".status.modelVersionName"),
    Column("Age", ".metadata.creationTimestamp", type="date"),
    Column("Method", ".spec.method", priority=1),
    Column("Base", ".spec.model.uri", priority=1),
    Column("Nodes", ".spec.resources.nodes", type="integer", priority=1),
    Column("GPUs", ".spec.resources.gpusPerNode", type="integer", priority=1),
    Column("Started", ".status.startTime", type="date", priority=1),
    Column("Ended", ".status.completionTime", type="date", priority=1),
    Column("Bytes", ".status.progress.checkpointBytes", type="integer", priority=1),
)
"""What `kubectl get` shows; those with a priority only with `-o wide`."""
