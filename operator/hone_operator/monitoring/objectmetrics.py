"""Metrics of FineTuneJobs, Datasets, ModelVersions, Models and pods, read from the cache at scrape time.

Nothing is remembered, so they are right immediately after a restart and vanish with their object. Labels hold names of
objects and values of small enumerations, never ids, steps or free text. The name of a job is in `finetunejob`, because
Prometheus uses `job`, `instance` and `pod` itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hone_api.estimate.gpu_time import gpus_of
from hone_api.words.failures import FAILURES
from hone_api.words.phases import PHASES, badput_of, seconds_of
from hone_api.words.progress_numbers import PROGRESS_NUMBERS
from hone_api.words.states import WAITS_FOR, ConditionType, JobPhase, Reason
from hone_operator.monitoring import modelmetrics, podmetrics
from hone_operator.monitoring.series import Sample, Series, filled
from hone_operator.objects.cache import Body, Cache
from hone_operator.progress.store import ProgressStore
from hone_operator.reconcile.core.pods import code_of_wait
from hone_operator.reconcile.run import goodput
from hone_operator.reconcile.run.run_attempts import Attempts
from hone_operator.times import read_time

JOB = ("namespace", "finetunejob")
REASONS = frozenset([*(reason.value for reason in Reason), *FAILURES])
REASON = ("reason", "cause")
OTHER = "Other"
"""In place of a reason that is not known here, e.g. of another version of Hone."""
QUEUE_SECONDS, QUEUE_LABELS = "hone_queue_goodput_seconds", ("namespace", "queue", "kind")


@dataclass(frozen=True)
class JobGauge:
    """A number of each FineTuneJob; None: it has none yet."""

    name: str
    help: str
    value: Callable[[Body], float | None]


def epoch_seconds(timestamp: str | None) -> float | None:
    """Unix time of an RFC 3339 timestamp; None if there is none or it cannot be parsed."""
    at = read_time(timestamp) if timestamp else None
    return at.timestamp() if at else None


def cause_of(reason: str) -> str:
    """Who can fix a failure with this code, or end a wait for this reason: user, data or platform; empty: nobody."""
    return FAILURES[reason].cause if reason in FAILURES else WAITS_FOR.get(reason) or ""


def ready(body: Body) -> float:
    """1 if the condition Ready is True."""
    conditions = body["status"].get("conditions") or ()
    return float(any(c["type"] == ConditionType.READY and c["status"] == "True" for c in conditions))


def _progress(body: Body) -> Mapping[str, Any]:
    """The progress of the current attempt. Before the first one, a status has that of the rows being encoded."""
    return (body["status"].get("progress") or {}) if body["status"].get("attempts") else {}


def _number(field: str) -> Callable[[Body], float | None]:
    def value(body: Body) -> float | None:
        number = _progress(body).get(field)
        try:
            return None if number is None else float(number)
        except ValueError:
            return None

    return value


def _ratio(body: Body) -> float | None:
    progress = _progress(body)
    if not progress:
        return None
    total: int | None = progress.get("totalSteps")
    step: int = progress.get("step", 0)
    percent: int = progress.get("percent", 0)
    return min(1.0, step / total) if total else percent / 100


def _attempts(body: Body, ended: slice) -> Attempts:
    """Attempts of a job, with those that its status only counts, so that no counter falls."""
    records = (body["status"].get("attempts") or [])[ended]
    return Attempts([each for each in records if "outcome" in each], earlier=body["status"].get("earlierAttempts"))


def _preemptions(body: Body) -> float:
    return float(_attempts(body, slice(None)).preemptions)


def _restarts(body: Body) -> float:
    return float(_attempts(body, slice(-1)).failures)


def _held(body: Body) -> float | None:
    held = [a.get("heldSecondsBeforeFirstStep") for a in body["status"].get("attempts") or ()]
    measured = [float(seconds) for seconds in held if seconds is not None]
    return sum(measured) if measured else None


def _evictions(body: Body) -> float | None:
    queue = body["status"].get("queue") or {}
    return float(queue.get("evictions", 0)) if queue.get("workload") else None


def _line_position(body: Body) -> float | None:
    position = (body["status"].get("queue") or {}).get("position")
    return None if position is None else float(position)


def _estimated_memory(body: Body) -> float | None:
    terms = (body["status"].get("memory") or {}).get("terms") or ()
    return float(sum(term["bytes"] for term in terms)) or None


GAUGES = (
    JobGauge("progress_ratio", "Optimiser steps done, as a share of the run.", _ratio),
    *(JobGauge(n.gauge_name, n.description, _number(n.json_name)) for n in PROGRESS_NUMBERS if n.job_gauge),
    JobGauge(
        "created_timestamp_seconds",
        "When the object was created, Unix time.",
        lambda b: epoch_seconds(b["metadata"]["creationTimestamp"]),
    ),
    JobGauge(
        "start_timestamp_seconds",
        "When the first attempt started, Unix time.",
        lambda b: epoch_seconds(b["status"].get("startTime")),
    ),
    JobGauge(
        "completion_timestamp_seconds",
        "When the job ended, Unix time.",
        lambda b: epoch_seconds(b["status"].get("completionTime")),
    ),
    JobGauge(
        "last_progress_timestamp_seconds",
        "When the trainer last reported something new, Unix time.",
        lambda b: epoch_seconds(_progress(b).get("lastUpdatedTime")),
    ),
    JobGauge(
        "held_seconds_before_first_step",
        "GPU-seconds before the first step, of all attempts; without GPUs, seconds.",
        _held,
    ),
    JobGauge(
        "estimated_memory_bytes",
        "Estimated memory of a rank in bytes; GPU memory if it has a GPU.",
        _estimated_memory,
    ),
    JobGauge("evictions", "How often Kueue took the quota of the newest attempt back.", _evictions),
    JobGauge(
        "line_position", "Place in the line of its namespace (tenants.maxActiveJobs), 1 for the next.", _line_position
    ),
)
COUNTERS = (
    JobGauge("restarts", "Attempts that failed and were followed by another.", _restarts),
    JobGauge("preemptions", "Attempts that ended by a disruption.", _preemptions),
)


class ObjectCollector(Collector):
    """Yields the families at scrape time; the cache may change meanwhile, but no body does."""

    def __init__(
        self,
        cache: Cache,
        reports: ProgressStore | None = None,
        stored: Mapping[str, Mapping[str, int]] | None = None,
    ):
        self._cache = cache
        self._reports = reports
        self._stored = {} if stored is None else stored
        """Bytes of every namespace's store by folder, as last measured."""

    def describe(self) -> list[Metric]:
        """Names only, so that registering reads nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        jobs, pods = self._cache.items("FineTuneJob"), self._cache.items("Pod")
        of_jobs = [_info(), _phases(), _reasons(), *_job_numbers(), _attempt_phases(), *_goodput(), self._eta()]
        of_jobs.append(podmetrics.held_gpus(pods))
        for family in filled(jobs, of_jobs):
            yield _summed(family) if family.name == QUEUE_SECONDS else family
        yield from filled(pods, [podmetrics.info()])
        datasets = self._cache.items("Dataset")
        is_ready = _ready("dataset", "dataset", "Whether the Dataset is Ready.")
        yield from filled(datasets, [_dataset_rows(), is_ready, _not_ready("Dataset")])
        versions = self._cache.items("ModelVersion")
        is_ready = _ready("modelversion", "modelversion", "Whether the ModelVersion is Ready.")
        yield from filled(
            versions, [_version_info(), is_ready, _not_ready("ModelVersion"), *modelmetrics.of_versions()]
        )
        is_ready = _ready("model", "model", "Whether every alias of the Model points where it should.")
        yield from filled(self._cache.items("Model"), [is_ready, *modelmetrics.of_models()])
        yield self._store({body["metadata"]["namespace"] for body in (*jobs, *datasets, *versions)})

    def _store(self, namespaces: set[str]) -> Metric:
        """The size of the stores of namespaces that have an object of ours."""
        text = "Bytes in a namespace's store by folder, as measured last (at least once a day)."
        family = GaugeMetricFamily("hone_store_bytes", text, labels=("namespace", "content"))
        for namespace in sorted(namespaces):
            for content, size in sorted(dict(self._stored.get(namespace) or {}).items()):
                family.add_metric((namespace, content), size)
        return family

    def _eta(self) -> Series:
        def samples(body: Body) -> Iterator[Sample]:
            latest = self._reports.latest(body["metadata"]["uid"]) if self._reports else None
            running = body["status"].get("phase") == JobPhase.RUNNING
            if running and latest and latest.eta_seconds is not None:
                yield _ref(body), latest.eta_seconds

        return Series(GaugeMetricFamily("hone_job_eta_seconds", "Estimated time to the end.", labels=JOB), samples)


def _ref(body: Body) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _info() -> Series:
    labels = (*JOB, "method", "base_model", "queue", "gpu_product")
    family = GaugeMetricFamily("hone_job_info", "Facts about a FineTuneJob; always 1.", labels=labels)

    def samples(body: Body) -> Iterator[Sample]:
        spec = body["spec"]
        base = next(iter(v for k, v in spec["model"].items() if k in ("uri", "modelVersion", "fineTuneJob")), "")
        queue = (spec.get("scheduling") or {}).get("queueName", "")
        products = (spec.get("resources") or {}).get("gpuProducts") or []
        product = products[0] if len(products) == 1 else ""
        yield (*_ref(body), spec.get("method", "SFT"), base, queue, product), 1

    return Series(family, samples)


def _phases() -> Series:
    family = GaugeMetricFamily("hone_job_phase", "1 for the phase a FineTuneJob is in, else 0.", labels=(*JOB, "phase"))

    def samples(body: Body) -> Iterator[Sample]:
        current = body["status"].get("phase", JobPhase.PENDING)
        for phase in JobPhase:
            yield (*_ref(body), phase.value), phase == current

    return Series(family, samples)


def _reasons() -> Series:
    text = "Why a FineTuneJob waits or has failed, as in status.reason, and who can do something about it; always 1."
    family = GaugeMetricFamily("hone_job_reason", text, labels=(*JOB, *REASON))
    return Series(family, lambda body: _reason(body, body["status"].get("reason")))


def _not_ready(kind: str) -> Series:
    text = f"Why a {kind} is not Ready, as in its condition, and who can do something about it; always 1."
    label = kind.lower()
    family = GaugeMetricFamily(f"hone_{label}_reason", text, labels=("namespace", label, *REASON))

    def samples(body: Body) -> Iterator[Sample]:
        for condition in body["status"].get("conditions") or ():
            if condition["type"] == ConditionType.READY and condition["status"] != "True":
                yield from _reason(body, condition["reason"])

    return Series(family, samples)


def _reason(body: Body, reason: str | None) -> Iterator[Sample]:
    """Our own words, in place of the kubelet's, too. Others are counted as one: anybody may have written a status."""
    if reason:
        word = reason if reason in REASONS else code_of_wait(reason) or OTHER
        yield (*_ref(body), word, cause_of(word)), 1


def _job_numbers() -> Iterator[Series]:
    for kind, numbers in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
        for number in numbers:
            yield Series(kind(f"hone_job_{number.name}", number.help, labels=JOB), _numbers(number))


def _attempt_phases() -> Series:
    text = "Seconds of all attempts of a FineTuneJob by phase, as in status.attempts[].phaseSeconds."
    family = GaugeMetricFamily("hone_job_attempt_phase_seconds", text, labels=(*JOB, "phase"))

    def samples(body: Body) -> Iterator[Sample]:
        spent = [seconds_of(a) for a in body["status"].get("attempts") or ()]
        for phase in PHASES:
            if measured := [seconds[phase.name] for seconds in spent if phase.name in seconds]:
                yield (*_ref(body), phase.name), sum(measured)

    return Series(family, samples)


def _goodput() -> Iterator[Series]:
    """Of each job, and over the jobs of each queue, in which attempts with more GPUs count more."""
    text = "Share of the time of a FineTuneJob in steps that count, as in status.goodput."
    ratio = GaugeMetricFamily("hone_job_goodput_ratio", text, labels=JOB)
    yield Series(ratio, lambda body: [(_ref(body), float(_status(body, "goodput")["ratio"]))])
    text = "Seconds of a FineTuneJob in which no step was trained that counts, by kind."
    badput = GaugeMetricFamily("hone_job_badput_seconds", text, labels=(*JOB, "kind"))
    yield Series(badput, lambda b: [((*_ref(b), k), s) for k, s in badput_of(_status(b, "goodput")).items()])
    text = "GPU-seconds of the FineTuneJobs of a queue by kind of badput, or productive; without GPUs, seconds."
    yield Series(GaugeMetricFamily(QUEUE_SECONDS, text, labels=QUEUE_LABELS), _queue_seconds)


def _summed(each: Metric) -> Metric:
    """One sample for each queue and kind, from those of its jobs."""
    sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for sample in each.samples:
        sums[tuple(sample.labels[label] for label in QUEUE_LABELS)] += sample.value
    family = GaugeMetricFamily(each.name, each.documentation, labels=QUEUE_LABELS)
    for values, seconds in sorted(sums.items()):
        family.add_metric(values, seconds)
    return family


def _queue_seconds(body: Body) -> Iterator[tuple[tuple[str, ...], int]]:
    """GPU-seconds of a job, whose attempts may have had different nodes; none where its status is not ours."""
    if not _status(body, "goodput"):
        return
    queue = ((body.get("spec") or {}).get("scheduling") or {}).get("queueName", "")
    attempts = body["status"].get("attempts") or []
    for record, spent in zip(attempts, goodput.spent(attempts), strict=True):
        gpus = max(1, gpus_of(body, record))
        for kind, seconds in spent.items():
            if seconds:
                yield (body["metadata"]["namespace"], queue, kind), gpus * seconds


def _status(body: Body, field: str) -> Body:
    return body["status"].get(field) or {}


def _numbers(number: JobGauge) -> Callable[[Body], Iterator[Sample]]:
    def samples(body: Body) -> Iterator[Sample]:
        if (value := number.value(body)) is not None:
            yield _ref(body), value

    return samples


def _dataset_rows() -> Series:
    labels = ("namespace", "dataset", "split")
    family = GaugeMetricFamily("hone_dataset_rows", "Valid rows of each split of a Dataset.", labels=labels)

    def samples(body: Body) -> Iterator[Sample]:
        for split in body["status"].get("splits") or ():
            yield (*_ref(body), split["name"]), split["rows"]

    return Series(family, samples)


def _version_info() -> Series:
    labels = ("namespace", "modelversion", "model", "version")
    family = GaugeMetricFamily("hone_modelversion_info", "Facts about a ModelVersion; always 1.", labels=labels)
    return Series(family, lambda body: [((*_ref(body), body["spec"]["modelName"], str(body["spec"]["version"])), 1)])


def _ready(kind: str, label: str, text: str) -> Series:
    family = GaugeMetricFamily(f"hone_{kind}_ready", text, labels=("namespace", label))
    return Series(family, lambda body: [(_ref(body), ready(body))])
