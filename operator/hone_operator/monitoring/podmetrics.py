"""Metrics of the pods that train: the node of each, and the GPUs that they hold for their job. Read at scrape time, as
in `objectmetrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily

from hone_api.estimate.gpu_time import gpus_of
from hone_operator.desired.core import names
from hone_operator.monitoring.series import Sample, Series
from hone_operator.objects.cache import Body

JOB = ("namespace", "finetunejob")
RANK = "batch.kubernetes.io/job-completion-index"
OVER = ("Succeeded", "Failed")
"""Phases of a pod that has given its node's resources back."""


def info() -> Series:
    """The node and the job of each pod."""
    labels = ("namespace", "pod", "finetunejob", "rank", "node")
    family = GaugeMetricFamily("hone_pod_info", "Pods of FineTuneJobs that have a node; always 1.", labels=labels)

    def samples(body: Body) -> Iterator[Sample]:
        meta, spec = body["metadata"], body["spec"]
        tags = meta.get("labels") or {}
        if _has_node(body):
            yield (meta["namespace"], meta["name"], tags[names.FINETUNEJOB], tags.get(RANK, ""), spec["nodeName"]), 1

    return Series(family, samples)


def held_gpus(pods: Iterable[Body]) -> Series:
    """GPUs of each job by its pods that have a node; at most those of its attempt, since anybody can label a pod."""
    text = "GPUs that the pods of a FineTuneJob hold now; absent without GPUs, or without such pods."
    running: Counter[tuple[str, str]] = Counter()
    for pod in pods:
        meta = pod["metadata"]
        if _has_node(pod) and (pod["status"] or {}).get("phase") not in OVER:
            running[meta["namespace"], meta["labels"][names.FINETUNEJOB]] += 1

    def samples(body: Body) -> Iterator[Sample]:
        job = (body["metadata"]["namespace"], body["metadata"]["name"])
        attempts = body["status"].get("attempts")
        each = (body["spec"].get("resources") or {}).get("gpusPerNode", 0)
        if attempts and each and (held := min(running[job] * each, gpus_of(body, attempts[-1]))):
            yield job, held

    return Series(GaugeMetricFamily("hone_job_gpus_held", text, labels=JOB), samples)


def _has_node(pod: Body) -> bool:
    tags = pod["metadata"].get("labels") or {}
    return names.ATTEMPT in tags and names.FINETUNEJOB in tags and bool(pod["spec"].get("nodeName"))
