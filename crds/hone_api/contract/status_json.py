"""Statuses as JSON, as the operator writes them. Generated from the models by `make crds`; do not edit.

Fields of a status itself can be None: setting one to None removes it.
"""

from typing import Literal, Required, TypedDict


class ConditionJson(TypedDict, total=False):
    type: Required[str]
    status: Required[Literal["True", "False", "Unknown"]]
    reason: Required[str]
    message: Required[str]
    observedGeneration: int
    lastTransitionTime: Required[str]


class JobProgressJson(TypedDict, total=False):
    step: int
    totalSteps: int
    epoch: str
    loss: str
    evalLoss: str
    learningRate: str
    gradNorm: str
    lossStep: int
    evalStep: int
    tokensPerSecond: str
    usefulTokens: str
    mfu: str
    gpuMemoryBytes: int
    rows: int
    totalRows: int
    rowsPerSecond: str
    checkpointBytes: int
    slowestRank: int
    slowestRankRatio: str
    percent: int
    metrics: dict[str, str]
    eta: str
    stage: str
    summary: str
    lastUpdatedTime: str


class MetricPointJson(TypedDict, total=False):
    step: Required[int]
    value: Required[str]


class MetricSeriesJson(TypedDict, total=False):
    name: Required[str]
    curve: str
    points: list[MetricPointJson]


class EncodingJson(TypedDict, total=False):
    work: Required[str]
    keys: Required[list[str]]
    rows: int
    tokens: int
    tokensPerSecond: str


class LatentAttentionJson(TypedDict, total=False):
    queryRank: int
    rank: Required[int]
    rotary: Required[int]
    expanded: Required[int]
    value: Required[int]


class ModelShapeJson(TypedDict, total=False):
    parameters: Required[int]
    layers: Required[int]
    hidden: Required[int]
    query: Required[int]
    keyValue: Required[int]
    intermediate: Required[int]
    experts: int
    expertWidth: int
    routed: int
    sharedWidth: int
    denseLayers: int
    denseWidth: int
    matrices: int
    vocabulary: Required[int]
    tied: bool
    latent: LatentAttentionJson
    context: int
    modelType: str


class PinnedModelJson(TypedDict, total=False):
    name: Required[str]
    uri: Required[str]
    digest: str
    adapterUri: str
    adapterDigest: str


class DatasetUseJson(TypedDict, total=False):
    name: Required[str]
    split: Required[str]
    digest: str
    rows: Required[int]
    tokens: Required[int]
    rowShare: Required[str]
    tokenShare: Required[str]
    passes: Required[str]


class StagedTasksJson(TypedDict, total=False):
    uri: Required[str]
    digest: Required[str]
    version: Required[str]
    dataSets: Required[list[str]]


class EncodedRowsJson(TypedDict, total=False):
    keys: Required[list[str]]
    digest: Required[str]


class ResolvedJson(TypedDict, total=False):
    modelCommit: str
    modelUri: str
    modelDigest: str
    modelShape: ModelShapeJson
    modelLicense: str
    modelVersion: PinnedModelJson
    modelVersions: list[PinnedModelJson]
    comparedWith: str
    datasetDigests: dict[str, str]
    datasetLicenses: dict[str, str]
    datasets: list[DatasetUseJson]
    evaluationDatasets: list[str]
    evaluationTasks: StagedTasksJson
    encodedRows: EncodedRowsJson
    learningRate: str
    microBatchSize: int
    gradientAccumulationSteps: int
    worldSize: int
    attention: str
    activationCheckpointing: str
    maxLength: int
    ropeScaling: str
    adapterRank: int
    adapterAlpha: int
    adaptedModules: int
    adaptedLayers: str
    image: str


class MemoryTermJson(TypedDict, total=False):
    name: Required[str]
    bytes: Required[int]


class MemoryJson(TypedDict, total=False):
    estimated: int
    terms: list[MemoryTermJson]
    peak: int


class SecondsRangeJson(TypedDict, total=False):
    low: Required[int]
    high: Required[int]


class AttemptPhasesJson(TypedDict, total=False):
    queued: int
    scheduled: int
    image: int
    loading: int
    encoding: int
    evaluatingBase: int
    firstStep: int
    training: int
    evaluating: int
    saving: int
    exporting: int
    suspended: int
    other: int


class AttemptJson(TypedDict, total=False):
    number: Required[int]
    jobName: Required[str]
    startTime: str
    endTime: str
    outcome: str
    reason: str
    startStep: int
    endStep: int
    lostSteps: int
    microBatchLimit: int
    microBatchSize: int
    learningRateHalvings: int
    faultyNodes: list[str]
    nodes: int
    nextNodes: int
    phaseSeconds: AttemptPhasesJson
    phases: dict[str, int]
    idleSince: str
    heldSecondsBeforeFirstStep: int


class EarlierAttemptsJson(TypedDict, total=False):
    number: Required[int]
    failed: Required[int]
    preempted: Required[int]
    queuedSeconds: int


class BadputJson(TypedDict, total=False):
    queue: int
    image: int
    loading: int
    firstStep: int
    evaluation: int
    saving: int
    lostSteps: int
    restart: int
    exporting: int
    other: int


class GoodputJson(TypedDict, total=False):
    ratio: Required[str]
    scheduling: Required[str]
    runtime: Required[str]
    seconds: Required[int]
    productiveSeconds: Required[int]
    badputSeconds: BadputJson
    badput: dict[str, int]


class QueueJson(TypedDict, total=False):
    name: str
    clusterQueue: str
    workload: str
    reason: Required[str]
    position: int
    message: str
    since: str
    priority: int
    evictions: int


class TrackedRunJson(TypedDict, total=False):
    uri: Required[str]
    experiment: Required[str]
    runId: Required[str]


class JobFailureJson(TypedDict, total=False):
    code: Required[str]
    message: str
    hint: str
    rank: int
    pod: str
    exitCode: int
    logTail: str


class FineTuneJobStatusJson(TypedDict, total=False):
    observedGeneration: int | None
    phase: str | None
    reason: str | None
    conditions: list[ConditionJson] | None
    progress: JobProgressJson | None
    metrics: list[MetricSeriesJson] | None
    encoding: EncodingJson | None
    resolved: ResolvedJson | None
    baseModelVersion: str | None
    memory: MemoryJson | None
    estimatedSeconds: int | None
    estimatedSecondsRange: SecondsRangeJson | None
    attempts: list[AttemptJson] | None
    earlierAttempts: EarlierAttemptsJson | None
    goodput: GoodputJson | None
    queue: QueueJson | None
    tracking: TrackedRunJson | None
    failure: JobFailureJson | None
    modelVersionName: str | None
    startTime: str | None
    completionTime: str | None


class SplitRowsJson(TypedDict, total=False):
    name: Required[str]
    rows: Required[int]


class RowErrorCountJson(TypedDict, total=False):
    code: Required[str]
    count: Required[int]
    rows: list[int]
    example: str
    hint: str


class NotReadFilesJson(TypedDict, total=False):
    reason: Required[str]
    count: Required[int]
    first: list[str]


class CurationStepJson(TypedDict, total=False):
    step: Required[str]
    removed: int
    changed: int
    otherAnswers: int
    rows: list[int]
    example: str


class SharedRowsJson(TypedDict, total=False):
    name: Required[str]
    digest: Required[str]
    rows: Required[int]
    questions: Required[int]
    crossing: int


class OverContextJson(TypedDict, total=False):
    context: Required[int]
    rows: Required[int]
    share: Required[str]


class TokenStatisticsJson(TypedDict, total=False):
    unit: str
    total: int
    mean: int
    median: int
    p95: int
    max: int
    over: list[OverContextJson]


class LanguageRowsJson(TypedDict, total=False):
    language: Required[str]
    rows: Required[int]
    share: Required[str]


class FilteredRowsJson(TypedDict, total=False):
    reason: Required[str]
    count: Required[int]


class SyntheticRowsJson(TypedDict, total=False):
    generated: int
    filtered: list[FilteredRowsJson]
    pending: int
    accepted: int
    edited: int
    rejected: int
    conflicts: int
    wanted: int
    complete: bool
    sample: str
    folder: str
    review: str


class ReviewPodJson(TypedDict, total=False):
    image: Required[str]
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"]
    imagePullSecrets: list[str]
    claim: Required[str]


class ChangesJson(TypedDict, total=False):
    previous: Required[str]
    added: Required[int]
    removed: Required[int]


class CroissantJson(TypedDict, total=False):
    name: str
    description: str
    license: str
    citeAs: str
    url: str


class DatasetFailureJson(TypedDict, total=False):
    code: Required[str]
    message: str
    hint: str


class DatasetStatusJson(TypedDict, total=False):
    observedGeneration: int | None
    phase: str | None
    conditions: list[ConditionJson] | None
    summary: str | None
    advice: list[str] | None
    report: str | None
    formatDetected: str | None
    digest: str | None
    revision: str | None
    uri: str | None
    sizeBytes: int | None
    rows: int | None
    splits: list[SplitRowsJson] | None
    splitSettings: str | None
    rejected: int | None
    errors: list[RowErrorCountJson] | None
    notRead: list[NotReadFilesJson] | None
    duplicates: int | None
    curation: list[CurationStepJson] | None
    sharedRows: list[SharedRowsJson] | None
    tokens: TokenStatisticsJson | None
    languages: list[LanguageRowsJson] | None
    synthetic: SyntheticRowsJson | None
    reviewPod: ReviewPodJson | None
    uploadPod: ReviewPodJson | None
    mixture: list[DatasetUseJson] | None
    changes: ChangesJson | None
    croissant: CroissantJson | None
    sourceVersion: str | None
    readTime: str | None
    failure: DatasetFailureJson | None
    tries: int | None
    lastTryTime: str | None


class SignatureStatusJson(TypedDict, total=False):
    key: str
    signedAt: str
    tries: int


class DeliveryProgressJson(TypedDict, total=False):
    arrivedBytes: Required[int]
    totalBytes: Required[int]
    percent: Required[int]
    bytesPerSecond: int
    eta: str
    summary: Required[str]
    lastUpdatedTime: str


class DeliveryStatusJson(TypedDict, total=False):
    key: Required[str]
    state: Required[str]
    reason: str
    message: str
    tries: int
    uri: Required[str]
    progress: DeliveryProgressJson
    location: str
    digest: str
    sizeBytes: int
    uploadedBytes: int
    deliveredAt: str


class EvaluationNumberJson(TypedDict, total=False):
    name: Required[str]
    dataset: str
    base: str
    tuned: Required[str]
    low: str
    high: str
    changeLow: str
    changeHigh: str
    against: str
    againstLow: str
    againstHigh: str
    purpose: Literal["HeldOut", "Retention", "Harness"]
    rows: int
    tokens: int


class MeasurementJson(TypedDict, total=False):
    key: Required[str]
    state: Required[str]
    reason: str
    message: str
    tries: int
    dataset: Required[str]
    split: Required[str]
    digest: str
    against: str
    numbers: list[EvaluationNumberJson]
    evaluatedAt: str


class DownloadPodJson(TypedDict, total=False):
    image: Required[str]
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"]
    imagePullSecrets: list[str]
    vllmImage: str


class ModelVersionStatusJson(TypedDict, total=False):
    observedGeneration: int | None
    conditions: list[ConditionJson] | None
    retried: str | None
    base: str | None
    evalLoss: str | None
    baseEvalLoss: str | None
    sizeBytes: int | None
    aliases: str | None
    verifiedAt: str | None
    tries: int | None
    lastTryTime: str | None
    signature: SignatureStatusJson | None
    deliveries: list[DeliveryStatusJson] | None
    evaluations: list[MeasurementJson] | None
    downloadPod: DownloadPodJson | None


class AliasTargetJson(TypedDict, total=False):
    version: Required[int]
    since: Required[str]
    until: Required[str]
    digest: str


class AliasStatusJson(TypedDict, total=False):
    name: Required[str]
    version: Required[int]
    modelVersion: Required[str]
    since: Required[str]
    digest: str
    writer: Required[Literal["Spec", "Promotion"]]
    approvedBy: str
    history: list[AliasTargetJson]


class FormerAliasJson(TypedDict, total=False):
    name: Required[str]
    history: Required[list[AliasTargetJson]]


class PromotionCandidateJson(TypedDict, total=False):
    version: Required[int]
    modelVersion: Required[str]
    gates: Required[str]
    approval: Required[str]
    message: str


class RetrainDatasetJson(TypedDict, total=False):
    name: Required[str]
    digest: Required[str]
    trained: Required[str]
    changedRows: Required[int]
    changedAt: str


class RetrainBaseStatusJson(TypedDict, total=False):
    uri: Required[str]
    present: str
    trained: str
    lookedAt: str
    problem: str


class RetrainStatusJson(TypedDict, total=False):
    datasets: list[RetrainDatasetJson]
    base: RetrainBaseStatusJson
    requestedAt: str
    dueSince: str
    lastJob: str
    lastStart: str
    succeeded: bool
    gpuSeconds: int


class RegisteredVersionJson(TypedDict, total=False):
    version: Required[int]
    registered: Required[str]


class RegisteredAliasJson(TypedDict, total=False):
    name: Required[str]
    version: Required[int]
    since: Required[str]


class RegistryStatusJson(TypedDict, total=False):
    uri: Required[str]
    name: Required[str]
    versions: list[RegisteredVersionJson]
    aliases: list[RegisteredAliasJson]


class ImportStatusJson(TypedDict, total=False):
    key: Required[str]
    state: Required[str]
    reason: str
    message: str
    tries: int
    uri: Required[str]
    modelVersion: str
    importedAt: str


class ModelStatusJson(TypedDict, total=False):
    observedGeneration: int | None
    conditions: list[ConditionJson] | None
    retried: str | None
    versions: int | None
    lastVersion: int | None
    latest: int | None
    aliases: list[AliasStatusJson] | None
    formerAliases: list[FormerAliasJson] | None
    promotable: int | None
    candidates: list[PromotionCandidateJson] | None
    retrain: RetrainStatusJson | None
    registry: RegistryStatusJson | None
    imports: list[ImportStatusJson] | None
    summary: str | None
