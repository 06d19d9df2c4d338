"""The closed list of failure codes: what each means to the operator, and what to tell people.

One table for both sides: the trainer exits with `exit_code`, the operator decides by `retry`.
Exit codes follow sysexits(3) where it has one.
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
    """Whether trying again can help."""

    NEVER = "Never"
    """The same input gives the same failure."""
    ATTEMPT = "Attempt"
    """Another attempt can succeed; it spends the restart budget."""
    DISRUPTION = "Disruption"
    """The cluster took the pod; another attempt, without spending the restart budget."""
    HEAL = "Heal"
    """The cause lies outside and may go away: try again with backoff, without end."""


@dataclass(frozen=True)
class Failure:
    """One code."""

    exit_code: ExitCode
    retry: Retry
    hint: str
    command: str = ""
    """What shows more, or does what the hint says; NAME and words like it are for the reader to replace."""


FAILURES: dict[str, Failure] = {
    # Sources and references
    "SourceUnreachable": Failure(
        ExitCode.IO, Retry.HEAL, "Check the host name and the network policy of the namespace."
    ),
    "SourceNotFound": Failure(ExitCode.CONFIG, Retry.HEAL, "Check the path of the source."),
    "SourceRefused": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Use a public https:// address, hf://, s3://, pvc:// or configmap://, or allow private addresses in the chart "
        "(limits.allowPrivateAddresses).",
    ),
    "SeveralSplits": Failure(
        ExitCode.DATA,
        Retry.HEAL,
        "Name the files of one split in spec.source.files, and create one Dataset for each split.",
    ),
    "SourceTooLarge": Failure(
        ExitCode.DATA, Retry.NEVER, "Split the source, or raise limits.maxSourceBytes of the chart."
    ),
    "ModelNotFound": Failure(ExitCode.CONFIG, Retry.HEAL, "Check owner and name, and secretName for a private model."),
    "DatasetSourceNotFound": Failure(
        ExitCode.CONFIG, Retry.HEAL, "Check owner and name, and secretName for private data."
    ),
    "GatedModelAccessDenied": Failure(
        ExitCode.CONFIG,
        Retry.HEAL,
        "Accept the licence on the hub, and name a Secret with the key HF_TOKEN in secretName.",
    ),
    "RevisionNotFound": Failure(ExitCode.CONFIG, Retry.HEAL, "Check the revision after @."),
    "ChecksumMismatch": Failure(ExitCode.DATA, Retry.HEAL, "Correct sha256, or find out who changed the source."),
    "SecretNotFound": Failure(
        ExitCode.CONFIG,
        Retry.HEAL,
        "Create the Secret in this namespace.",
        "kubectl create secret generic SECRET --from-literal=KEY=VALUE",
    ),
    "SecretKeyNotFound": Failure(
        ExitCode.CONFIG,
        Retry.HEAL,
        "Add the key to the Secret.",
        """kubectl patch secret SECRET -p '{"stringData": {"KEY": "VALUE"}}'""",
    ),
    "UnsafeModel": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Hone loads only safetensors and runs no code from a model: convert the weights with transformers' "
        "save_pretrained, or use a model that has safetensors files.",
    ),
    "UnsupportedModel": Failure(
        ExitCode.CONFIG, Retry.NEVER, "Use a causal language model that transformers supports."
    ),
    # Data
    "EmptySource": Failure(ExitCode.DATA, Retry.HEAL, "The source has no rows: check the path and the files."),
    "UnknownFormat": Failure(ExitCode.DATA, Retry.HEAL, "Name the format, and map the columns in spec.columns."),
    "UnreadColumns": Failure(
        ExitCode.DATA, Retry.HEAL, "Map the column in spec.columns, or list it in spec.ignoreColumns."
    ),
    "DamagedFile": Failure(
        ExitCode.DATA,
        Retry.HEAL,
        "Download or write the file again. The number of rows that it should have is unknown.",
    ),
    "TooManyBadRows": Failure(ExitCode.DATA, Retry.HEAL, "Fix the rows listed, or raise checks.maxRejected."),
    "TooFewRows": Failure(ExitCode.DATA, Retry.HEAL, "Add rows, or lower checks.minRows."),
    "WrongLanguage": Failure(
        ExitCode.DATA, Retry.HEAL, "Remove the rows of other languages, or change checks.languages or minLanguageShare."
    ),
    "EmptySplit": Failure(ExitCode.DATA, Retry.HEAL, "Raise splits.validation, or add rows."),
    "EndpointUnreachable": Failure(
        ExitCode.IO, Retry.HEAL, "Check the endpoint and the network policy of the namespace."
    ),
    "EndpointRefused": Failure(
        ExitCode.CONFIG,
        Retry.HEAL,
        "Check the endpoint, its model, and API_KEY in the Secret. If rows are named, read the server's message about "
        "them.",
    ),
    "NothingGenerated": Failure(
        ExitCode.DATA, Retry.NEVER, "See filtered.jsonl of the batch; use a stronger model, or relax the filters."
    ),
    "InvalidRow": Failure(ExitCode.DATA, Retry.NEVER, "Fix the row named in the message."),
    "DatasetFormatMismatch": Failure(
        ExitCode.DATA, Retry.NEVER, "Use a Dataset with a format that the method accepts, or another method."
    ),
    "VerifierRejectsGold": Failure(
        ExitCode.DATA,
        Retry.NEVER,
        "A reward must score the row's own answer 1: fix the rows named, or choose another reward.",
    ),
    "ConfigMapNotFound": Failure(
        ExitCode.CONFIG, Retry.HEAL, "Create the ConfigMap in this namespace, with the key named in the message."
    ),
    "RewardFailed": Failure(
        ExitCode.DATA, Retry.NEVER, "Fix the reward named in the message: it must return a number for each sample."
    ),
    "RewardConstant": Failure(
        ExitCode.DATA,
        Retry.NEVER,
        "All samples of a prompt get the same reward: use easier prompts, a finer reward, more generations or a "
        "higher temperature.",
    ),
    "NoGradient": Failure(
        ExitCode.DATA,
        Retry.NEVER,
        "Nothing can be learned: raise grpo.maxCompletionLength, or unset maskTruncatedCompletions. For other "
        "methods, check the rows and adapter.targets.",
    ),
    "OneSidedData": Failure(
        ExitCode.DATA, Retry.NEVER, "Add answers of the other kind: the method needs both good and bad answers."
    ),
    "RowTooLong": Failure(ExitCode.DATA, Retry.NEVER, "Raise training.maxLength, or set training.truncation to Drop."),
    "NoTrainableRows": Failure(ExitCode.DATA, Retry.NEVER, "Raise training.maxLength, or check the Dataset's format."),
    # Configuration
    "InvalidValue": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Give each field named in the message a value that it accepts.",
        "kubectl explain ftj.spec --recursive",
    ),
    "UnknownField": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Correct the name of the field, or remove it.",
        "kubectl explain ftj.spec --recursive",
    ),
    "ConflictingFields": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Change one of the fields that the message names: each is valid, but not together with the others.",
        "kubectl get ftj NAME -o yaml",
    ),
    "CircularReference": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Let one of these objects start from something else, e.g. from model.uri.",
        "kubectl get ftj -o custom-columns=NAME:.metadata.name,STARTS-FROM:.spec.model.fineTuneJob",
    ),
    "UnusableModelVersion": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Name a ModelVersion of the kind that the message requires.",
        "kubectl get mv -o custom-columns=NAME:.metadata.name,METHOD:.spec.lineage.method,"
        "FORMS:.spec.artifacts[*].format",
    ),
    "PlatformUnsuitable": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Change the field, or ask the platform team for the value of the chart that the message names.",
        "helm get values RELEASE --namespace NAMESPACE --all",
    ),
    "FileNotFound": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Check the path. It is relative to the folder that the command runs in.",
        "ls FOLDER",
    ),
    "InvalidArgument": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Correct the arguments that the message names.",
        "python -m hone_trainer COMMAND --help",
    ),
    "InvalidConfiguration": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Correct the fields or arguments that the message names.",
        "kubectl describe ftj NAME",
    ),
    "NotSupportedYet": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "Remove the field, or use a later version of Hone.",
        "kubectl explain ftj.spec --recursive",
    ),
    "NotAllowed": Failure(
        ExitCode.CONFIG, Retry.NEVER, "Change the fields named, or ask the platform team to allow them."
    ),
    "CreateRefused": Failure(ExitCode.CONFIG, Retry.NEVER, "Correct the field that the API server names."),
    "UpstreamFailed": Failure(
        ExitCode.CONFIG, Retry.NEVER, "Fix the cause named in the message, and create this job again."
    ),
    "ReferenceMismatch": Failure(
        ExitCode.SOFTWARE,
        Retry.NEVER,
        "The reference differs from the model that training starts from. Please report this bug.",
    ),
    "SelfCheckFailed": Failure(
        ExitCode.SOFTWARE, Retry.NEVER, "The rows changed between encoding and the model. Please report this bug."
    ),
    "GradientMismatch": Failure(
        ExitCode.SOFTWARE,
        Retry.NEVER,
        "This processor cannot train 4-bit layers: use adapter.type LoRA, or another node. Please report this.",
    ),
    "DoesNotFit": Failure(
        ExitCode.CONFIG, Retry.NEVER, "Make the change that the message names, or request more memory."
    ),
    "RetentionGateFailed": Failure(
        ExitCode.DATA,
        Retry.NEVER,
        "Train less, at a lower rate, or with replay (datasets[].share); the model is kept as a rejected ModelVersion.",
    ),
    # Running
    "Diverged": Failure(
        ExitCode.DIVERGED, Retry.NEVER, "Lower training.learningRate, or check the rows of the last batch."
    ),
    "OutOfMemory": Failure(
        ExitCode.SOFTWARE,
        Retry.NEVER,
        "Lower microBatchSize or maxLength, use gradientCheckpointing or QLoRA, or raise resources.memory.",
    ),
    "GpuOutOfMemory": Failure(
        ExitCode.SOFTWARE,
        Retry.NEVER,
        "Lower microBatchSize or maxLength, use gradientCheckpointing or QLoRA, or a larger GPU.",
    ),
    "SandboxFailed": Failure(
        ExitCode.SOFTWARE,
        Retry.ATTEMPT,
        "The sandbox for reward programs failed in this pod; the message has the reason. Use the trainer image of "
        "this release. If you do, please report this.",
    ),
    "DiskFull": Failure(
        ExitCode.IO,
        Retry.ATTEMPT,
        "Enlarge the store's volume claim, or delete FineTuneJobs and ModelVersions that are no longer needed.",
        "kubectl get ftj,dset,mv -o wide",
    ),
    "StorageError": Failure(
        ExitCode.IO,
        Retry.ATTEMPT,
        "Check the store's volume. If user 10001 may not write to one of its folders, set store.isolateRuns=false in "
        "the chart.",
    ),
    "CheckpointCorrupt": Failure(ExitCode.IO, Retry.ATTEMPT, "An older valid checkpoint is used; check the volume."),
    "DatasetChanged": Failure(
        ExitCode.IO,
        Retry.NEVER,
        "The rows in the store differ from those that were recorded. Delete the Dataset and create it again, and find "
        "out who writes to the store.",
    ),
    "ManifestMismatch": Failure(ExitCode.IO, Retry.NEVER, "A file differs from its manifest: do not use this model."),
    "Interrupted": Failure(ExitCode.INTERRUPTED, Retry.DISRUPTION, "The run was stopped after a checkpoint."),
    "Disrupted": Failure(ExitCode.INTERRUPTED, Retry.DISRUPTION, "The cluster removed the pod; the run continues."),
    "RankFailed": Failure(
        ExitCode.SOFTWARE, Retry.ATTEMPT, "See the log of the rank that the message names.", "kubectl logs POD"
    ),
    "TrainerError": Failure(
        ExitCode.SOFTWARE,
        Retry.ATTEMPT,
        "See the log; please report it if the cause is not in your data or settings.",
        "kubectl logs -l hone.dev/finetunejob=NAME --tail=100",
    ),
    # Seen by the operator alone
    "ImagePullFailed": Failure(
        ExitCode.CONFIG, Retry.NEVER, "Check the trainer image and imagePullSecrets of the chart."
    ),
    "Unschedulable": Failure(
        ExitCode.CONFIG, Retry.NEVER, "Lower resources, or add nodes. The message quotes the scheduler."
    ),
    "CreateContainerFailed": Failure(
        ExitCode.CONFIG,
        Retry.NEVER,
        "See the message of the kubelet. If it cannot create a subPath folder, set store.isolateRuns=false in the "
        "chart.",
        "kubectl describe pod -l hone.dev/finetunejob=NAME",
    ),
    "QuotaExceeded": Failure(
        ExitCode.CONFIG, Retry.HEAL, "Free quota in the namespace, or ask for more.", "kubectl describe quota"
    ),
    "PodRefused": Failure(
        ExitCode.CONFIG,
        Retry.HEAL,
        "A rule of the cluster refuses the pod, often a LimitRange or a missing PriorityClass: change the field named "
        "in the message, or the rule.",
        "kubectl describe limitrange; kubectl get priorityclass",
    ),
    "DeadlineExceeded": Failure(ExitCode.CONFIG, Retry.NEVER, "Raise spec.deadline, or train less."),
    "RestartsExhausted": Failure(ExitCode.SOFTWARE, Retry.NEVER, "See the reasons in status.attempts."),
    "ResultMissing": Failure(
        ExitCode.SOFTWARE,
        Retry.ATTEMPT,
        "The pod ended without a result: its image is not a trainer of this release, or somebody deleted the pod. See "
        "its log.",
        "kubectl logs -l hone.dev/finetunejob=NAME --tail=100",
    ),
}
