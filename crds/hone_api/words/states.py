"""What a status says in one word: condition types, reasons, phases, outcomes. Each word has a line that says when.

The pages of the reference are generated from these lines. A reason can also be a failure code
(`hone_api.words.failures`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

from hone_api.words.failures import FailureCode, FixedBy


class State(StrEnum):
    """A word of a status, and the sentence that documents it."""

    _value_: str
    when: str

    def __new__(cls, value: str, when: str = "") -> State:
        """The word is the value on the wire; each member has both."""
        member = str.__new__(cls, value)
        member._value_, member.when = value, when
        return member


class ConditionType(State):
    """Conditions of all kinds. A FineTuneJob has all of its own from the first status on, except TasksReady and
    RowsEncoded."""

    READY = (
        "Ready",
        "The object can be used: the rows are in the store, the run made its model, the files match, or every alias "
        "points where it should",
    )
    RECONCILING = "Reconciling", "Something still happens by itself"
    STALLED = "Stalled", "Nothing more happens by itself: a final failure, or a spec that cannot run"
    ACCEPTED = "Accepted", "This version of Hone, in this installation, can run the spec"
    DATASET_READY = "DatasetReady", "All Datasets of the job are Ready"
    MODEL_READY = "ModelReady", "The base model is in the store, at a pinned commit"
    TASKS_READY = "TasksReady", "The data sets of `evaluation.harness` are in the store; absent without that field"
    ROWS_ENCODED = "RowsEncoded", "The rows are in the store as tokens; absent where the run encodes them itself"
    ADMITTED = "Admitted", "All pods of the attempt have a node; False with the reason while the run waits in its queue"
    RUNNING = "Running", "All pods of the attempt are running"
    SUSPENDED = "Suspended", "`spec.suspend` is true"
    SUCCEEDED = "Succeeded", "The run ended well and its ModelVersion exists"
    FAILED = "Failed", "The run ended without a usable model"
    FINISHED = "Finished", "Succeeded or Failed: one condition to wait for"
    ADVISED = "Advised", "Something looks wrong but does not end the run; the message says what"
    UP_TO_DATE = (
        "UpToDate",
        "The content is what the source had at the last check, with `spec.refresh`; of a Model: the newest rows were "
        "trained on, with `spec.retrain`",
    )
    REVIEW_PENDING = "ReviewPending", "Generated rows wait for a person"
    VERIFIED = "Verified", "Every file of the model matches its manifest"
    SIGNED = (
        "Signed",
        "Every artifact has a signature by a key of the platform; absent where it names none",
    )
    DELIVERED = (
        "Delivered",
        "All of `spec.deliveries` and of the Model's that apply arrived and match; absent where nothing is delivered",
    )
    MEASURED = "Measured", "All of `spec.evaluations` were measured on the present rows; absent without any"
    REGISTERED = "Registered", "Versions and aliases are in the registry of `spec.registry`; absent where it names none"
    IMPORTED = "Imported", "Every model of `spec.imports` is a version; absent where nothing is imported"
    SERVABLE = "Servable", "vLLM or llama.cpp loads the model as it was exported; the message says how, or what to do"


GATES = (
    ConditionType.DATASET_READY,
    ConditionType.MODEL_READY,
    ConditionType.TASKS_READY,
    ConditionType.ROWS_ENCODED,
)
"""Conditions that are true before the first attempt; the last two exist only if there is such work."""
_JOB, _DATASET, _VERSION, _MODEL = "FineTuneJob", "Dataset", "ModelVersion", "Model"
KSTATUS = (ConditionType.READY, ConditionType.STALLED, ConditionType.RECONCILING)
"""What a person looks for first: is it done, can it continue, what is happening."""
CONDITIONS_OF: dict[str, tuple[ConditionType, ...]] = {
    _JOB: (
        *KSTATUS,
        ConditionType.ACCEPTED,
        *GATES,
        ConditionType.ADMITTED,
        ConditionType.RUNNING,
        ConditionType.SUSPENDED,
        ConditionType.SUCCEEDED,
        ConditionType.FAILED,
        ConditionType.FINISHED,
        ConditionType.ADVISED,
    ),
    _DATASET: (*KSTATUS, ConditionType.ACCEPTED, ConditionType.UP_TO_DATE, ConditionType.REVIEW_PENDING),
    _VERSION: (
        *KSTATUS,
        ConditionType.ACCEPTED,
        ConditionType.VERIFIED,
        ConditionType.SIGNED,
        ConditionType.SERVABLE,
        ConditionType.DELIVERED,
        ConditionType.MEASURED,
    ),
    _MODEL: (
        *KSTATUS,
        ConditionType.ACCEPTED,
        ConditionType.UP_TO_DATE,
        ConditionType.REGISTERED,
        ConditionType.IMPORTED,
    ),
}
"""By kind."""


class Reason(State):
    """Reasons of conditions and Events that are not failure codes."""

    # Of the spec
    ACCEPTED = "Accepted", "The spec can run"
    UNKNOWN_FIELDS = "UnknownFields", "The spec has fields that this version does not know; they have no effect"
    NOT_ACCEPTED = "NotAccepted", "The spec cannot run: see Accepted"
    NAMESPACE_NOT_ENABLED = "NamespaceNotEnabled", "The operator has no rights in this namespace; the message says how"
    NAME_TAKEN = "NameTaken", "An object that Hone did not write has the name of one that it needs"
    # Of what the spec names
    READY = "Ready", "All Datasets are Ready, or the first attempt has pinned them"
    DATASET_NOT_FOUND = "DatasetNotFound", "A Dataset that the spec names does not exist"
    DATASET_NOT_READY = "DatasetNotReady", "A Dataset that the spec names is not Ready yet, or has failed"
    SPLIT_NOT_FOUND = "SplitNotFound", "A Dataset has no rows in the split that the spec names"
    WAITING_FOR_DATASET = "WaitingForDataset", "Nothing is staged before the Dataset exists"
    PVC_NOT_FOUND = "PVCNotFound", "A PersistentVolumeClaim that the spec names does not exist"
    FINE_TUNE_JOB_NOT_FOUND = "FineTuneJobNotFound", "The job that the model should come from does not exist"
    WAITING_FOR_JOB = "WaitingForJob", "The job that the model comes from has not finished"
    MODEL_VERSION_NOT_FOUND = "ModelVersionNotFound", "A ModelVersion that the spec names does not exist"
    MODEL_VERSION_REJECTED = "ModelVersionRejected", "A person or a gate has rejected the ModelVersion"
    WAITING_FOR_MODEL_VERSION = "WaitingForModelVersion", "The ModelVersion is not verified yet"
    MODEL_MISSING = "ModelMissing", "A Model that the spec names does not exist, or the operator has not seen it yet"
    ALIAS_NOT_FOUND = "AliasNotFound", "A Model that the spec names has no such alias, or it points to nothing"
    FETCHING = "Fetching", "A Job is staging the model or the tasks in the store"
    ENCODING = "Encoding", "A Job is encoding the rows as tokens; `status.progress` says how far it is"
    ENCODED = "Encoded", "The rows are in the store as tokens"
    AVAILABLE = "Available", "The model or the tasks can be read"
    # Of attempts
    WAITING = "Waiting", "A condition before this one does not hold yet"
    PENDING = "Pending", "The pods were requested and do not all have a node"
    SCHEDULED = "Scheduled", "All pods have a node"
    NOT_ADMITTED = "NotAdmitted", "The run failed before its pods had a node"
    STARTING = "Starting", "The pods are starting"
    RUNNING = "Running", "The pods are running"
    STARTED = "Started", "All pods of the attempt run (Event)"
    BACK_OFF = "BackOff", "The last attempt failed; the message says when the next one starts"
    RESTARTING = "Restarting", "An attempt failed and another one follows (Event)"
    PREEMPTED = "Preempted", "The cluster ended an attempt and another one follows (Event)"
    STOPPING = (
        "Stopping",
        "The pods of the last attempt are stopping; the next one, or the end of the run, waits for them",
    )
    RESIZED = (
        "Resized",
        "The attempt waited too long for nodes or quota: the next one has another number of nodes "
        "(`resources.minNodes`); also the Event of an attempt that has more nodes again",
    )
    IMAGE_CHANGED = "ImageChanged", "The attempt could not pull its image; the next one uses another"
    PLAN_LOST = "PlanLost", "The plan of a Job was deleted before a pod read it (Event)"
    # Of a queue
    QUEUED = "Queued", "The run waits in its queue; the message has Kueue's reason, and `status.queue` more"
    QUEUE_NOT_FOUND = "QueueNotFound", "`spec.scheduling.queueName` names a LocalQueue that does not exist"
    REQUEUED = (
        "Requeued",
        "Kueue took the quota back: the pods stop after a checkpoint, and the run waits for quota again",
    )
    DEACTIVATED = (
        "Deactivated",
        "Somebody, or Kueue itself, has deactivated the Workload; the message says how to go on",
    )
    # Of suspension
    SUSPENDED = "Suspended", "`spec.suspend` is true"
    SUSPENDED_BY_USER = "SuspendedByUser", "`spec.suspend` is true"
    NOT_SUSPENDED = "NotSuspended", "`spec.suspend` is false"
    RESUMED = "Resumed", "`spec.suspend` was set to false again (Event)"
    # Of the end
    NOT_FINISHED = "NotFinished", "The run has not ended"
    SUCCEEDED = "Succeeded", "The run ended well"
    FAILED = "Failed", "The run failed: see Failed"
    COMPLETED = "Completed", "The run trained all of its steps"
    EARLY_STOPPED = "EarlyStopped", "The held-out loss stopped improving, so the run ended early"
    RESTORED_FROM_MODEL_VERSION = "RestoredFromModelVersion", "The status was lost; the ModelVersion says how it ended"
    RESTORED_DIFFERS = "RestoredDiffers", "Restored from a backup, and a job of its name made a model by another spec"
    RESTORED_FROM_RECORD = "RestoredFromRecord", "The status was lost; the record of the failed run says how it ended"
    # Of advice
    NOT_KNOWN_YET = "NotKnownYet", "Data and model are not known yet"
    ADVICE = "Advice", "The message has the advice"
    NOTHING_TO_ADVISE = "NothingToAdvise", "Nothing looks wrong"
    # Of a Dataset
    MATERIALIZING = "Materializing", "A Job is reading the source"
    MATERIALIZED = "Materialized", "The rows are in the store"
    AWAITING_REVIEW = "AwaitingReview", "Generated rows wait for a person"
    REVIEWED = "Reviewed", "All generated rows that are needed have been decided"
    READ = "Read", "The source was read"
    UNCHANGED = "Unchanged", "The source has not changed since it was read"
    SAME_CONTENT = "SameContent", "The source changed and gave the same rows"
    REFRESHED = "Refreshed", "The source gave other rows; new jobs use them"
    # Of a ModelVersion
    VERIFYING = "Verifying", "A Job is hashing every file"
    VERIFIED = "Verified", "Every file matches its manifest"
    SIGNING = "Signing", "A Job is signing the model, or compares the signature that somebody else made"
    SIGNED = "Signed", "A key of the platform has signed every file"
    DELIVERING = "Delivering", "A Job is copying the model to where `spec.deliveries` says"
    DELIVERY_LEFT_OUT = (
        "DeliveryLeftOut",
        "The ModelVersion is without an entry of `spec.output.push` that this version of the API refuses (Event)",
    )
    DELIVERED = "Delivered", "The model arrived where `spec.deliveries` says, and every byte matches"
    MEASURING = "Measuring", "A Job measures the model on the rows of an entry of `spec.evaluations`"
    MEASURED = "Measured", "The model was measured on the present rows of all of `spec.evaluations`"
    LOADS = "Loads", "A server loads the model as it was exported"
    NOT_SERVABLE = "NotServable", "No server loads what was exported; the message says what to export"
    # Of a Model
    REGISTERING = "Registering", "A Job registers versions or sets aliases where `spec.registry` says"
    REGISTERED = "Registered", "The registry of `spec.registry` has the versions and aliases"
    RESOLVED = "Resolved", "Every alias points where it should"
    NOT_HANDED_OVER = "NotHandedOver", "Servers do not learn what aliases mean: ConfigMap `hone-served` is not written"
    VERSION_EXPIRED = "VersionExpired", "A ModelVersion is deleted because newer ones exist, by spec.retention (Event)"
    JOB_EXPIRED = "JobExpired", "A FineTuneJob is deleted by the history limits of `spec.retrain` (Event)"
    ALIAS_MOVED = "AliasMoved", "An alias points to another version (Event)"
    ALIAS_LOST = "AliasLost", "An alias points nowhere any more, since its version cannot be used (Event)"
    TRAINED = "Trained", "A job trained on the present content of the Datasets"
    IMPORTING = "Importing", "A Job reads a model of `spec.imports`"
    IMPORTED = "Imported", "Every model of `spec.imports` is a version"
    RETRAINING = "Retraining", "A job of this model is not finished: no other is created meanwhile"
    RETRAIN_FAILED = "RetrainFailed", "No job on the present content succeeded; new content, or a request, is next"
    WAITING_FOR_ROWS = "WaitingForRows", "Fewer rows changed than `spec.retrain` asks for"
    WAITING_FOR_QUIET = "WaitingForQuiet", "Rows changed a moment ago: `spec.retrain.quietPeriod` has not passed"
    WAITING_FOR_INTERVAL = "WaitingForInterval", "The last job started less than `spec.retrain.minInterval` ago"
    BUDGET_USED_UP = "BudgetUsedUp", "The GPU hours are used: of this month, or of the repeated job's budget"
    NOT_REPEATABLE = "NotRepeatable", "The job that `spec.retrain` names cannot be repeated; the message says why"
    # Of the operator
    INTERNAL_ERROR = "InternalError", "The operator failed on this object and retries: report it"
    STATUS_REFUSED = "StatusRefused", "The API server refused the status that the operator wrote"
    WRITE_REFUSED = "WriteRefused", "The API server refused to create or change an object; the message names it"
    API_SERVER_ERROR = "APIServerError", "The API server fails a request, e.g. because an admission webhook is down"
    RECOVERED = "Recovered", "The operator works on this object again"
    UNREADABLE = "Unreadable", "The object is too large, too deep or not JSON, and is skipped (Event)"
    UNWRITABLE = "Unwritable", "The object has no room for a status, and is left alone (Event)"


WAITS_FOR: dict[str, FixedBy | None] = {
    **dict.fromkeys(
        (
            Reason.DATASET_NOT_FOUND,
            Reason.WAITING_FOR_DATASET,
            Reason.SPLIT_NOT_FOUND,
            Reason.PVC_NOT_FOUND,
            Reason.FINE_TUNE_JOB_NOT_FOUND,
            Reason.WAITING_FOR_JOB,
            Reason.MODEL_VERSION_NOT_FOUND,
            Reason.MODEL_VERSION_REJECTED,
            Reason.WAITING_FOR_MODEL_VERSION,
            Reason.MODEL_MISSING,
            Reason.ALIAS_NOT_FOUND,
            Reason.NAME_TAKEN,
            Reason.NAMESPACE_NOT_ENABLED,
            Reason.NOT_ACCEPTED,
            Reason.NOT_SERVABLE,
            Reason.RESTORED_DIFFERS,
            Reason.QUEUE_NOT_FOUND,
            Reason.DEACTIVATED,
            Reason.SUSPENDED,
            Reason.SUSPENDED_BY_USER,
        ),
        FixedBy.USER,
    ),
    **dict.fromkeys((Reason.DATASET_NOT_READY, Reason.AWAITING_REVIEW), FixedBy.DATA),
    **dict.fromkeys(
        (Reason.INTERNAL_ERROR, Reason.STATUS_REFUSED, Reason.WRITE_REFUSED, Reason.API_SERVER_ERROR),
        FixedBy.PLATFORM,
    ),
    **dict.fromkeys(
        (
            # It takes time.
            Reason.WAITING,
            Reason.FETCHING,
            Reason.ENCODING,
            Reason.MATERIALIZING,
            Reason.PENDING,
            Reason.STARTING,
            Reason.QUEUED,
            Reason.REQUEUED,
            Reason.RESIZED,
            Reason.BACK_OFF,
            Reason.STOPPING,
            Reason.IMAGE_CHANGED,
            Reason.VERIFYING,
            Reason.SIGNING,
            Reason.DELIVERING,
            Reason.MEASURING,
        ),
        None,
    ),
    **dict.fromkeys(
        (
            # It waits for nothing.
            Reason.NOT_KNOWN_YET,
            Reason.NOT_SUSPENDED,
            Reason.NOT_ADMITTED,
            Reason.NOT_FINISHED,
            Reason.RECOVERED,
            Reason.REVIEWED,
            Reason.VERIFIED,
            Reason.SIGNED,
            Reason.LOADS,
            Reason.DELIVERED,
            Reason.MEASURED,
            Reason.SUCCEEDED,
            Reason.RESTORED_FROM_MODEL_VERSION,
            Reason.RESTORED_FROM_RECORD,
        ),
        None,
    ),
}
"""Who can end a wait that no failure code explains; None: nobody has to. What a spec names has alerts of its own."""

Quoted = NewType("Quoted", str)
"""A reason that Kubernetes or another version of Hone wrote: the kubelet's ErrImagePull, the scheduler's words."""
AnyReason = Reason | FailureCode | Quoted


class JobPhase(State):
    """State of a FineTuneJob for display; derived from the conditions, never read by code."""

    PENDING = "Pending", "Something that the spec names does not exist"
    PREPARING = "Preparing", "Datasets are being read, or the model is being staged"
    QUEUED = "Queued", "The run waits in its queue: see `status.queue`"
    STARTING = "Starting", "The first attempt is starting"
    RUNNING = "Running", "All pods are running"
    REQUEUED = "Requeued", "Kueue took the quota back; the run waits in its queue and continues from its checkpoint"
    RESTARTING = "Restarting", "A later attempt is starting"
    SUSPENDED = "Suspended", "`spec.suspend` is true"
    SUCCEEDED = "Succeeded", "The run ended well"
    FAILED = "Failed", "The run failed: see `status.failure`"


class DatasetPhase(State):
    """State of a Dataset for display."""

    PENDING = "Pending", "The Dataset waits for something, or its pod does not start"
    MATERIALIZING = "Materializing", "A Job is reading the source"
    AWAITING_REVIEW = "AwaitingReview", "Generated rows wait for a person"
    READY = "Ready", "The rows are in the store"
    FAILED = "Failed", "The rows could not be read: see `status.failure`"


class AttemptOutcome(State):
    """How an attempt of a run ended."""

    RUNNING = "Running", "It has not ended"
    SUCCEEDED = "Succeeded", "It left a result"
    FAILED = "Failed", "It failed by itself: it counts as a restart"
    PREEMPTED = "Preempted", "The cluster ended it: it counts as a preemption"
    SUSPENDED = "Suspended", "`spec.suspend` ended it: it does not count"
    REQUEUED = "Requeued", "Kueue took its quota back: it does not count, and continues when Kueue admits it again"
    RESIZED = "Resized", "Not all of its pods found a node in time: it does not count, and the next one has fewer nodes"


class GateResult(State):
    """What a gate of `spec.promotion` of a Model says of a version."""

    PASSED = "Passed", "The whole 95 % interval keeps the limit"
    FAILED = "Failed", "The whole interval misses the limit"
    INCONCLUSIVE = "Inconclusive", "The interval spans the limit, or the number is missing: measure more rows"


class DeliveryState(State):
    """State of one entry of `spec.deliveries` of a ModelVersion."""

    PENDING = "Pending", "It has not begun, or the next attempt waits; the reason says for what"
    DELIVERING = "Delivering", "A Job copies the files"
    DELIVERED = "Delivered", "Every byte arrived and matches"
    FAILED = "Failed", "No further attempt before the entry or the annotation `hone.dev/retry` changes: see its reason"


class ImportState(State):
    """State of one entry of `spec.imports` of a Model."""

    PENDING = "Pending", "It has not begun, or the next attempt waits; the reason says for what"
    IMPORTING = "Importing", "A Job reads the files, checks them and writes them to the store"
    IMPORTED = "Imported", "The ModelVersion exists"
    FAILED = "Failed", "No further attempt before the entry or the annotation `hone.dev/retry` changes: see its reason"


class MeasurementState(State):
    """State of one entry of `spec.evaluations` of a ModelVersion."""

    PENDING = "Pending", "It has not begun, or the next attempt waits; the reason says for what"
    MEASURING = "Measuring", "A Job measures the model; the numbers are those that were measured before, if any"
    MEASURED = "Measured", "The numbers are those of the present rows"
    FAILED = "Failed", "No further attempt before something of the entry, or `hone.dev/retry`, changes: see its reason"


class ApprovalState(State):
    """What a person or a gate decided about a ModelVersion: `spec.approval.state`."""

    CANDIDATE = "Candidate", "Nobody has decided, or the approval was withdrawn"
    APPROVED = "Approved", "A person approved it"
    REJECTED = "Rejected", "A person or a gate rejected it: it is not used"
