"""The complete list of failure codes: what each means to the operator, and the hint for people.

One table for both sides: the trainer exits with `exit_code`, the operator decides by `retry`.
Exit codes follow sysexits(3), except SOFTWARE (1, there 70) and DIVERGED (70).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """Exit codes of the trainer image."""

    DONE = 0
    DATA = 65
    SOFTWARE = 1
    DIVERGED = 70
    IO = 74
    INTERRUPTED = 75
    CONFIG = 78


class Retry(StrEnum):
    """Whether another attempt can help."""

    NEVER = "Never"
    """The same input gives the same failure."""
    ATTEMPT = "Attempt"
    """Another attempt can succeed; it spends the restart budget."""
    DISRUPTION = "Disruption"
    """The cluster ended the pod; another attempt, without using the restart budget."""
    UNTIL_FIXED = "Heal"
    """The cause is external and may disappear: retry with backoff, without limit."""


class FixedBy(StrEnum):
    """Who can fix a failure. Alerts have it as a label, so that a mistake in a manifest wakes nobody."""

    USER = "user"
    """Who wrote the object: its fields, a Secret, an address, memory."""
    DATA = "data"
    """Who looks after the rows, or after what judges them."""
    PLATFORM = "platform"
    """Who runs the cluster: nodes, storage, images, signing, Hone itself."""


_BY_EXIT_CODE = {ExitCode.DATA: FixedBy.DATA, ExitCode.CONFIG: FixedBy.USER, ExitCode.DIVERGED: FixedBy.USER}


class FailureCode(StrEnum):
    """Names of causes. What each means is in `FAILURES`."""

    # Sources and references
    SOURCE_UNREACHABLE = "SourceUnreachable"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_REFUSED = "SourceRefused"
    SEVERAL_SPLITS = "SeveralSplits"
    SOURCE_TOO_LARGE = "SourceTooLarge"
    MODEL_NOT_FOUND = "ModelNotFound"
    DATASET_SOURCE_NOT_FOUND = "DatasetSourceNotFound"
    GATED_MODEL_ACCESS_DENIED = "GatedModelAccessDenied"
    REVISION_NOT_FOUND = "RevisionNotFound"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    DESTINATION_UNREACHABLE = "DestinationUnreachable"
    DESTINATION_DENIED = "DestinationDenied"
    DESTINATION_REFUSED = "DestinationRefused"
    DESTINATION_OCCUPIED = "DestinationOccupied"
    DESTINATION_FULL = "DestinationFull"
    DELIVERY_DAMAGED = "DeliveryDamaged"
    SIGNATURE_MISSING = "SignatureMissing"
    SIGNATURE_INVALID = "SignatureInvalid"
    SIGNING_KEY_UNUSABLE = "SigningKeyUnusable"
    SECRET_NOT_FOUND = "SecretNotFound"
    SECRET_KEY_NOT_FOUND = "SecretKeyNotFound"
    UNSAFE_MODEL = "UnsafeModel"
    UNSUPPORTED_MODEL = "UnsupportedModel"
    BASE_MISMATCH = "BaseMismatch"
    # Data
    EMPTY_SOURCE = "EmptySource"
    UNKNOWN_FORMAT = "UnknownFormat"
    UNREAD_COLUMNS = "UnreadColumns"
    DAMAGED_FILE = "DamagedFile"
    TOO_MANY_BAD_ROWS = "TooManyBadRows"
    TOO_FEW_ROWS = "TooFewRows"
    WRONG_LANGUAGE = "WrongLanguage"
    EMPTY_SPLIT = "EmptySplit"
    ENDPOINT_UNREACHABLE = "EndpointUnreachable"
    ENDPOINT_REFUSED = "EndpointRefused"
    NOTHING_GENERATED = "NothingGenerated"
    INVALID_ROW = "InvalidRow"
    DATASET_FORMAT_MISMATCH = "DatasetFormatMismatch"
    VERIFIER_REJECTS_GOLD = "VerifierRejectsGold"
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    REWARD_FAILED = "RewardFailed"
    REWARD_CONSTANT = "RewardConstant"
    NO_GRADIENT = "NoGradient"
    ONE_SIDED_DATA = "OneSidedData"
    ROW_TOO_LONG = "RowTooLong"
    NO_TRAINABLE_ROWS = "NoTrainableRows"
    # Configuration
    INVALID_VALUE = "InvalidValue"
    UNKNOWN_FIELD = "UnknownField"
    CONFLICTING_FIELDS = "ConflictingFields"
    CIRCULAR_REFERENCE = "CircularReference"
    UNUSABLE_MODEL_VERSION = "UnusableModelVersion"
    PLATFORM_UNSUITABLE = "PlatformUnsuitable"
    HARDWARE_UNSUITABLE = "HardwareUnsuitable"
    MODEL_UNSUITABLE = "ModelUnsuitable"
    HELD_OUT_ROWS_MISSING = "HeldOutRowsMissing"
    FILE_NOT_FOUND = "FileNotFound"
    INVALID_ARGUMENT = "InvalidArgument"
    INVALID_CONFIGURATION = "InvalidConfiguration"
    NOT_SUPPORTED_YET = "NotSupportedYet"
    NOT_ALLOWED = "NotAllowed"
    CREATE_REFUSED = "CreateRefused"
    UPSTREAM_FAILED = "UpstreamFailed"
    REFERENCE_MISMATCH = "ReferenceMismatch"
    SELF_CHECK_FAILED = "SelfCheckFailed"
    GRADIENT_MISMATCH = "GradientMismatch"
    DOES_NOT_FIT = "DoesNotFit"
    RETENTION_GATE_FAILED = "RetentionGateFailed"
    # Running
    DIVERGED = "Diverged"
    OUT_OF_MEMORY = "OutOfMemory"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    SANDBOX_FAILED = "SandboxFailed"
    DISK_FULL = "DiskFull"
    STORAGE_ERROR = "StorageError"
    CHECKPOINT_CORRUPT = "CheckpointCorrupt"
    DATASET_CHANGED = "DatasetChanged"
    MANIFEST_MISMATCH = "ManifestMismatch"
    INTERRUPTED = "Interrupted"
    DISRUPTED = "Disrupted"
    NODE_FAULT = "NodeFault"
    RANK_FAILED = "RankFailed"
    RANKS_DIFFER = "RanksDiffer"
    HUNG = "Hung"
    TRAINER_ERROR = "TrainerError"
    # Seen by the operator alone
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    CREATE_CONTAINER_FAILED = "CreateContainerFailed"
    QUOTA_EXCEEDED = "QuotaExceeded"
    POD_REFUSED = "PodRefused"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    BUDGET_EXCEEDED = "BudgetExceeded"
    RESTARTS_EXHAUSTED = "RestartsExhausted"
    RESULT_MISSING = "ResultMissing"


@dataclass(frozen=True)
class Failure:
    """One code."""

    exit_code: ExitCode
    retry: Retry
    hint: str
    command: str = ""
    """A command that shows more or applies the hint; the reader replaces NAME and similar words."""
    fixed_by: FixedBy | None = None
    """Who can fix it, where the exit code does not say so."""

    @property
    def cause(self) -> FixedBy:
        """Who can fix it."""
        return self.fixed_by or _BY_EXIT_CODE.get(self.exit_code, FixedBy.PLATFORM)


FAILURES: dict[str, Failure] = {
    # Sources and references
    FailureCode.SOURCE_UNREACHABLE: Failure(
        ExitCode.IO,
        Retry.UNTIL_FIXED,
        "Check the host name and the network policy of the namespace.",
        fixed_by=FixedBy.USER,
    ),
    FailureCode.SOURCE_NOT_FOUND: Failure(
        ExitCode.CONFIG,
        Retry.UNTIL_FIXED,
        "Check the path of the source and, if secretName is set, the keys of that Secret.",
    ),
    FailureCode.SOURCE_REFUSED: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Use a public https:// address, hf://, s3://, pvc:// or configmap://, or allow private addresses in the chart "
        "(limits.allowPrivateAddresses).",
    ),
    FailureCode.SEVERAL_SPLITS: Failure(
        ExitCode.DATA,
        Retry.UNTIL_FIXED,
        "Name the files of one split in spec.source.files, and create one Dataset for each split.",
    ),
    FailureCode.SOURCE_TOO_LARGE: Failure(
        ExitCode.DATA, Retry.NEVER, "Split the source, or raise limits.maxSourceBytes of the chart."
    ),
    FailureCode.MODEL_NOT_FOUND: Failure(
        ExitCode.CONFIG,
        Retry.UNTIL_FIXED,
        "Check owner and name, and secretName for a private model; for a model on a volume, the path.",
    ),
    FailureCode.DATASET_SOURCE_NOT_FOUND: Failure(
        ExitCode.CONFIG, Retry.UNTIL_FIXED, "Check owner and name, and secretName for private data."
    ),
    FailureCode.GATED_MODEL_ACCESS_DENIED: Failure(
        ExitCode.CONFIG,
        Retry.UNTIL_FIXED,
        "Accept the licence on the hub, and name a Secret with the key HF_TOKEN in secretName.",
    ),
    FailureCode.REVISION_NOT_FOUND: Failure(ExitCode.CONFIG, Retry.UNTIL_FIXED, "Check the revision after @."),
    FailureCode.CHECKSUM_MISMATCH: Failure(
        ExitCode.DATA, Retry.UNTIL_FIXED, "Correct sha256, or find out who changed the source."
    ),
    FailureCode.DESTINATION_UNREACHABLE: Failure(
        ExitCode.IO,
        Retry.UNTIL_FIXED,
        "Check the host name, the network policy of the namespace, and whether the server runs.",
        fixed_by=FixedBy.USER,
    ),
    FailureCode.DESTINATION_DENIED: Failure(
        ExitCode.CONFIG,
        Retry.UNTIL_FIXED,
        "Check the keys of the Secret, and whether they may write there. For a volume: whether the node has mounted it "
        "read-only, e.g. after an error.",
    ),
    FailureCode.DESTINATION_REFUSED: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Change spec.deliveries of the ModelVersion as the message says: its uri, or the s3 endpoint and region. For a "
        "registry, change spec.registry of the Model.",
    ),
    FailureCode.DESTINATION_OCCUPIED: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Something else is already there, and Hone did not change it. Name another path or tag in spec.deliveries of "
        "the ModelVersion, or remove what is there and change the entry.",
    ),
    FailureCode.DESTINATION_FULL: Failure(
        ExitCode.IO,
        Retry.UNTIL_FIXED,
        "Free space at the destination, or raise its quota.",
        fixed_by=FixedBy.USER,
    ),
    FailureCode.DELIVERY_DAMAGED: Failure(
        ExitCode.IO,
        Retry.UNTIL_FIXED,
        "What arrived differs from what was sent: check the network and the server's storage.",
    ),
    FailureCode.SIGNATURE_MISSING: Failure(
        ExitCode.CONFIG,
        Retry.UNTIL_FIXED,
        "The model has no model.sig, but the platform requires one: name the Secret with the key in signing.secretName "
        "of the chart, or sign the folder with model_signing.",
        fixed_by=FixedBy.PLATFORM,
    ),
    FailureCode.SIGNATURE_INVALID: Failure(
        ExitCode.DATA,
        Retry.NEVER,
        "The signature is by no key in signing.publicKeys of the chart, or not for these files: do not use this model "
        "before you know why. If a key was replaced, add the old one to the list.",
        fixed_by=FixedBy.PLATFORM,
    ),
    FailureCode.SIGNING_KEY_UNUSABLE: Failure(
        ExitCode.CONFIG,
        Retry.UNTIL_FIXED,
        "The signing Secret's private-key.pem must be an unencrypted PEM of P-256, P-384 or P-521, and its public key "
        "one of signing.publicKeys of the chart.",
        "openssl ecparam -name prime256v1 -genkey -noout -out private-key.pem; openssl ec -in private-key.pem -pubout",
        fixed_by=FixedBy.PLATFORM,
    ),
    FailureCode.SECRET_NOT_FOUND: Failure(
        ExitCode.CONFIG,
        Retry.UNTIL_FIXED,
        "Create the Secret in this namespace.",
        "kubectl create secret generic SECRET --from-literal=KEY=VALUE",
    ),
    FailureCode.SECRET_KEY_NOT_FOUND: Failure(
        ExitCode.CONFIG,
        Retry.UNTIL_FIXED,
        "Add the key to the Secret.",
        """kubectl patch secret SECRET -p '{"stringData": {"KEY": "VALUE"}}'""",
    ),
    FailureCode.UNSAFE_MODEL: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Hone loads only safetensors and runs no code from a model: convert the weights with transformers' "
        "save_pretrained, or use a model that has safetensors files.",
    ),
    FailureCode.UNSUPPORTED_MODEL: Failure(
        ExitCode.CONFIG, Retry.NEVER, "Use a causal language model that transformers supports."
    ),
    FailureCode.BASE_MISMATCH: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Name the model that the adapter was trained on in spec.imports[].base of the Model, or import another "
        "adapter.",
    ),
    # Data
    FailureCode.EMPTY_SOURCE: Failure(
        ExitCode.DATA, Retry.UNTIL_FIXED, "The source has no rows: check the path and the files."
    ),
    FailureCode.UNKNOWN_FORMAT: Failure(
        ExitCode.DATA, Retry.UNTIL_FIXED, "Name the format, and map the columns in spec.columns."
    ),
    FailureCode.UNREAD_COLUMNS: Failure(
        ExitCode.DATA, Retry.UNTIL_FIXED, "Map the column in spec.columns, or list it in spec.ignoreColumns."
    ),
    FailureCode.DAMAGED_FILE: Failure(
        ExitCode.DATA,
        Retry.UNTIL_FIXED,
        "Download or write the file again. The number of rows that it should have is unknown.",
    ),
    FailureCode.TOO_MANY_BAD_ROWS: Failure(
        ExitCode.DATA, Retry.UNTIL_FIXED, "Fix the rows listed, or raise checks.maxRejected."
    ),
    FailureCode.TOO_FEW_ROWS: Failure(ExitCode.DATA, Retry.UNTIL_FIXED, "Add rows, or lower checks.minRows."),
    FailureCode.WRONG_LANGUAGE: Failure(
        ExitCode.DATA,
        Retry.UNTIL_FIXED,
        "Remove the rows of other languages, or change checks.languages or minLanguageShare.",
    ),
    FailureCode.EMPTY_SPLIT: Failure(ExitCode.DATA, Retry.UNTIL_FIXED, "Raise splits.validation, or add rows."),
    FailureCode.ENDPOINT_UNREACHABLE: Failure(
        ExitCode.IO,
        Retry.UNTIL_FIXED,
        "Check the endpoint and the network policy of the namespace.",
        fixed_by=FixedBy.USER,
    ),
    FailureCode.ENDPOINT_REFUSED: Failure(
        ExitCode.CONFIG,
        Retry.UNTIL_FIXED,
        "Check the endpoint, its model, and API_KEY in the Secret. If rows are named, read the server's message about "
        "them.",
    ),
    FailureCode.NOTHING_GENERATED: Failure(
        ExitCode.DATA, Retry.NEVER, "See filtered.jsonl of the batch; use a stronger model, or relax the filters."
    ),
    FailureCode.INVALID_ROW: Failure(ExitCode.DATA, Retry.NEVER, "Fix the row named in the message."),
    FailureCode.DATASET_FORMAT_MISMATCH: Failure(
        ExitCode.DATA, Retry.NEVER, "Use a Dataset with a format that the method accepts, or another method."
    ),
    FailureCode.VERIFIER_REJECTS_GOLD: Failure(
        ExitCode.DATA,
        Retry.NEVER,
        "A reward must give the row's own answer a score of 1: fix these rows, or choose another reward.",
    ),
    FailureCode.CONFIG_MAP_NOT_FOUND: Failure(
        ExitCode.CONFIG, Retry.UNTIL_FIXED, "Create the ConfigMap in this namespace, with the key named in the message."
    ),
    FailureCode.REWARD_FAILED: Failure(
        ExitCode.DATA, Retry.NEVER, "Fix the reward named in the message: it must return a number for each sample."
    ),
    FailureCode.REWARD_CONSTANT: Failure(
        ExitCode.DATA,
        Retry.NEVER,
        "All samples of a prompt get the same reward: use easier prompts, a finer reward, more generations or a "
        "higher temperature.",
    ),
    FailureCode.NO_GRADIENT: Failure(
        ExitCode.DATA,
        Retry.NEVER,
        "Nothing can be learned: raise grpo.maxCompletionLength, or unset maskTruncatedCompletions. For other "
        "methods, check the rows and adapter.targets.",
    ),
    FailureCode.ONE_SIDED_DATA: Failure(
        ExitCode.DATA, Retry.NEVER, "Add answers of the other kind: the method needs both good and bad answers."
    ),
    FailureCode.ROW_TOO_LONG: Failure(
        ExitCode.DATA, Retry.NEVER, "Raise training.maxLength, or set training.truncation to Drop."
    ),
    FailureCode.NO_TRAINABLE_ROWS: Failure(
        ExitCode.DATA, Retry.NEVER, "Raise training.maxLength, or check the Dataset's format."
    ),
    # Configuration
    FailureCode.INVALID_VALUE: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Give each field named in the message a value that it accepts.",
        "kubectl explain ftj.spec --recursive",
    ),
    FailureCode.UNKNOWN_FIELD: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Correct the name of the field, or remove it.",
        "kubectl explain ftj.spec --recursive",
    ),
    FailureCode.CONFLICTING_FIELDS: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Change one of the fields that the message names: each is valid, but not together with the others.",
        "kubectl get ftj NAME -o yaml",
    ),
    FailureCode.CIRCULAR_REFERENCE: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Let one of these objects start from something else, e.g. from model.uri.",
        "kubectl get ftj -o custom-columns=NAME:.metadata.name,STARTS-FROM:.spec.model.fineTuneJob",
    ),
    FailureCode.UNUSABLE_MODEL_VERSION: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Name a ModelVersion of the kind that the message requires.",
        "kubectl get mv -o custom-columns=NAME:.metadata.name,METHOD:.spec.lineage.method,"
        "FORMS:.spec.artifacts[*].format",
    ),
    FailureCode.PLATFORM_UNSUITABLE: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Change the field, or ask the platform team for the value of the chart that the message names.",
        "helm get values RELEASE --namespace NAMESPACE --all",
    ),
    FailureCode.HARDWARE_UNSUITABLE: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Change the field that the message names, or request another kind of GPU in resources.gpuProducts.",
        "kubectl get nodes -L nvidia.com/gpu.product",
    ),
    FailureCode.MODEL_UNSUITABLE: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Change the field that the message names, or choose another base model: this one does not support it.",
        "kubectl get ftj NAME -o jsonpath='{.status.resolved.modelShape}'",
    ),
    FailureCode.HELD_OUT_ROWS_MISSING: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Name held-out rows in spec.evaluationDatasets, or set splits.validation of the Dataset.",
        "kubectl get dset -o custom-columns=NAME:.metadata.name,SPLITS:.status.splits[*].name",
    ),
    FailureCode.FILE_NOT_FOUND: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Check the path. It is relative to the folder that the command runs in.",
        "ls FOLDER",
    ),
    FailureCode.INVALID_ARGUMENT: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Correct the arguments that the message names.",
        "python -m hone_trainer COMMAND --help",
    ),
    FailureCode.INVALID_CONFIGURATION: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Correct the fields or arguments that the message names.",
        "kubectl describe ftj NAME",
    ),
    FailureCode.NOT_SUPPORTED_YET: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Remove the field, and follow the advice after it in the message.",
        "kubectl explain ftj.spec --recursive",
    ),
    FailureCode.NOT_ALLOWED: Failure(
        ExitCode.CONFIG, Retry.NEVER, "Change the fields named, or ask the platform team to allow them."
    ),
    FailureCode.CREATE_REFUSED: Failure(ExitCode.CONFIG, Retry.NEVER, "Correct the field that the API server names."),
    FailureCode.UPSTREAM_FAILED: Failure(
        ExitCode.CONFIG, Retry.NEVER, "Fix the cause named in the message, and create this job again."
    ),
    FailureCode.REFERENCE_MISMATCH: Failure(
        ExitCode.SOFTWARE,
        Retry.NEVER,
        "The reference differs from the model that training starts from. Please report this bug.",
    ),
    FailureCode.SELF_CHECK_FAILED: Failure(
        ExitCode.SOFTWARE, Retry.NEVER, "The rows changed between encoding and the model. Please report this bug."
    ),
    FailureCode.GRADIENT_MISMATCH: Failure(
        ExitCode.SOFTWARE,
        Retry.NEVER,
        "This processor cannot train 4-bit layers: use adapter.type LoRA, or another node. Please report this.",
    ),
    FailureCode.DOES_NOT_FIT: Failure(
        ExitCode.CONFIG, Retry.NEVER, "Make the change that the message names, or request more memory."
    ),
    FailureCode.RETENTION_GATE_FAILED: Failure(
        ExitCode.DATA,
        Retry.NEVER,
        "Use fewer steps, a lower rate, or replay (datasets[].share); the model is kept as a rejected ModelVersion.",
        fixed_by=FixedBy.USER,
    ),
    # Running
    FailureCode.DIVERGED: Failure(
        ExitCode.DIVERGED,
        Retry.NEVER,
        "Lower training.learningRate (restarts.onDivergence does it by itself), or check the rows of the last batch.",
    ),
    FailureCode.OUT_OF_MEMORY: Failure(
        ExitCode.SOFTWARE,
        Retry.NEVER,
        "Lower microBatchSize or maxLength, use gradientCheckpointing or QLoRA, or raise resources.memory.",
        fixed_by=FixedBy.USER,
    ),
    FailureCode.GPU_OUT_OF_MEMORY: Failure(
        ExitCode.SOFTWARE,
        Retry.NEVER,
        "Lower microBatchSize or maxLength, use gradientCheckpointing or QLoRA, or a larger GPU.",
        fixed_by=FixedBy.USER,
    ),
    FailureCode.SANDBOX_FAILED: Failure(
        ExitCode.SOFTWARE,
        Retry.ATTEMPT,
        "The sandbox for reward programs failed in this pod; the message has the reason. Use the trainer image of "
        "this release. If you do, please report this.",
    ),
    FailureCode.DISK_FULL: Failure(
        ExitCode.IO,
        Retry.ATTEMPT,
        "Enlarge the store's volume claim, or delete FineTuneJobs and ModelVersions that are no longer needed.",
        "kubectl get ftj,dset,mv -o wide",
    ),
    FailureCode.STORAGE_ERROR: Failure(
        ExitCode.IO,
        Retry.ATTEMPT,
        "Check the store's volume. If user 10001 may not write to one of its folders, set store.isolateRuns=false in "
        "the chart.",
    ),
    FailureCode.CHECKPOINT_CORRUPT: Failure(
        ExitCode.IO, Retry.ATTEMPT, "An older valid checkpoint is used; check the volume."
    ),
    FailureCode.DATASET_CHANGED: Failure(
        ExitCode.IO,
        Retry.NEVER,
        "The rows in the store differ from those that were recorded. Delete the Dataset and create it again, and find "
        "out who writes to the store.",
    ),
    FailureCode.MANIFEST_MISMATCH: Failure(
        ExitCode.IO, Retry.NEVER, "A file differs from its manifest: do not use this model."
    ),
    FailureCode.INTERRUPTED: Failure(ExitCode.INTERRUPTED, Retry.DISRUPTION, "The run was stopped after a checkpoint."),
    FailureCode.DISRUPTED: Failure(
        ExitCode.INTERRUPTED, Retry.DISRUPTION, "The cluster removed the pod; the run continues."
    ),
    FailureCode.NODE_FAULT: Failure(
        ExitCode.INTERRUPTED,
        Retry.DISRUPTION,
        "Later attempts of a run avoid the node that the message names, if there is another. Ask the platform team to "
        "drain and repair it.",
        "kubectl describe node NODE",
    ),
    FailureCode.RANK_FAILED: Failure(
        ExitCode.SOFTWARE, Retry.ATTEMPT, "See the log of the rank that the message names.", "kubectl logs POD"
    ),
    FailureCode.RANKS_DIFFER: Failure(
        ExitCode.SOFTWARE,
        Retry.ATTEMPT,
        "The next attempt goes on from the last checkpoint on which all ranks agreed. If it happens again, leave out "
        "the node of the rank that the message names: its GPU or its memory may be faulty.",
    ),
    FailureCode.HUNG: Failure(
        ExitCode.SOFTWARE,
        Retry.ATTEMPT,
        "A rank stopped making progress: the message names it, and the pod's log has the stacks of all threads. "
        "If the step is only slow, raise restarts.hangTimeout.",
        "kubectl logs POD",
    ),
    FailureCode.TRAINER_ERROR: Failure(
        ExitCode.SOFTWARE,
        Retry.ATTEMPT,
        "See the log; if the cause is not in your data or settings, please report a bug.",
        "kubectl logs -l hone.dev/finetunejob=NAME --tail=100",
    ),
    # Seen by the operator alone
    FailureCode.IMAGE_PULL_FAILED: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Check the trainer image and imagePullSecrets of the chart; of a base model by oci://, its address and "
        "model.secretName.",
        fixed_by=FixedBy.PLATFORM,
    ),
    FailureCode.UNSCHEDULABLE: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Lower resources, or add nodes. The message quotes the scheduler.",
        fixed_by=FixedBy.PLATFORM,
    ),
    FailureCode.CREATE_CONTAINER_FAILED: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "See the message of the kubelet. If it cannot create a subPath folder, set store.isolateRuns=false in the "
        "chart.",
        "kubectl describe pod -l hone.dev/finetunejob=NAME",
        fixed_by=FixedBy.PLATFORM,
    ),
    FailureCode.QUOTA_EXCEEDED: Failure(
        ExitCode.CONFIG, Retry.UNTIL_FIXED, "Free quota in the namespace, or ask for more.", "kubectl describe quota"
    ),
    FailureCode.POD_REFUSED: Failure(
        ExitCode.CONFIG,
        Retry.UNTIL_FIXED,
        "A rule of the cluster refuses the pod, often a LimitRange or a missing PriorityClass: change the field named "
        "in the message, or the rule.",
        "kubectl describe limitrange; kubectl get priorityclass",
        fixed_by=FixedBy.PLATFORM,
    ),
    FailureCode.DEADLINE_EXCEEDED: Failure(ExitCode.CONFIG, Retry.NEVER, "Raise spec.deadline, or train less."),
    FailureCode.BUDGET_EXCEEDED: Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Raise spec.budget in a new job, or train less. The last checkpoint can be exported.",
    ),
    FailureCode.RESTARTS_EXHAUSTED: Failure(ExitCode.SOFTWARE, Retry.NEVER, "See the reasons in status.attempts."),
    FailureCode.RESULT_MISSING: Failure(
        ExitCode.SOFTWARE,
        Retry.ATTEMPT,
        "The pod ended without a result: its image is not a trainer of this release, or somebody deleted the pod. See "
        "its log.",
        "kubectl logs -l hone.dev/finetunejob=NAME --tail=100",
    ),
}
