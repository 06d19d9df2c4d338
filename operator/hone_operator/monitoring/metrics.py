"""The operator's `/metrics`: state of objects from the cache, and counters of the operator itself.

Names and units follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import aiohttp
from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from hone_api.words.states import ConditionType
from hone_operator import __version__
from hone_operator.apiserver.errors import ClusterError
from hone_operator.desired.core.names import OWNER_LABEL
from hone_operator.monitoring.objectmetrics import ObjectCollector, cause_of, epoch_seconds
from hone_operator.objects.cache import Body, Cache
from hone_operator.objects.decoding import REASONS
from hone_operator.progress.store import ProgressStore
from hone_operator.queueing.routing import Key
from hone_operator.reconcile.core.notreconciled import WEBHOOK_FAILED

KINDS = tuple(OWNER_LABEL)
MINUTE, HOUR, DAY = 60, 3600, 86400
RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
WAIT_BUCKETS = (10, 30, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, 12 * HOUR, DAY)
DURATION_BUCKETS = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, 12 * HOUR, DAY, 3 * DAY, 7 * DAY)
API_ERRORS = ("Webhook", "ServerError", "Throttled", "Unreachable")
log = logging.getLogger(__name__)
disable_created_metrics()  # an additional series for each counter that nobody reads


class Metrics:
    """Counters and histograms of this process, and the collector for the objects."""

    def __init__(
        self,
        cache: Cache,
        reports: ProgressStore,
        depth: Callable[[], int],
        stored: Mapping[str, Mapping[str, int]] | None = None,
        since: float | None = None,
    ):
        self.registry = CollectorRegistry()
        self._cache = cache
        self._since = time.time() if since is None else since
        self._namespaces: set[str] = set()
        self._admitted: set[str] = set()
        self._finished: set[str] = set()
        """uids of jobs that were counted; only events while this process runs are counted."""
        self._operator_metrics(depth)
        self._job_metrics()
        self.registry.register(ObjectCollector(cache, reports, stored))
        ProcessCollector(registry=self.registry)

    def _operator_metrics(self, depth: Callable[[], int]) -> None:
        registry = self.registry
        build = Gauge("hone_operator_build_info", "Version of the operator; always 1.", ["version"], registry=registry)
        build.labels(__version__).set(1)
        queue = Gauge("hone_operator_queue_depth", "Objects that wait to be reconciled.", registry=registry)
        queue.set_function(depth)
        self._durations = Histogram(
            "hone_operator_reconcile_duration_seconds",
            "Time that one reconcile took.",
            ["kind"],
            buckets=RECONCILE_BUCKETS,
            registry=registry,
        )
        self._errors = Counter(
            "hone_operator_reconcile_errors_total",
            "Reconciles that failed and will be retried.",
            ["kind"],
            registry=registry,
        )
        self._api_errors = Counter(
            "hone_operator_api_errors_total",
            "Reconciles that failed because of the API server, by what was wrong.",
            ["reason"],
            registry=registry,
        )
        self._internal = Counter(
            "hone_operator_internal_errors_total",
            "Reconciles that failed by an error of the operator itself.",
            ["kind"],
            registry=registry,
        )
        self._refused = Counter(
            "hone_operator_status_refused_total",
            "Times that the API server refused the status of an object.",
            ["kind"],
            registry=registry,
        )
        self._deaf = Counter(
            "hone_operator_deaf_watches_total",
            "Times that a watch began again because it had delivered nothing, though objects had changed.",
            ["kind"],
            registry=registry,
        )
        self._certificate_ends = Gauge(
            "hone_operator_certificate_expiry_timestamp_seconds",
            "When a certificate of the progress port expires, Unix time.",
            ["certificate"],
            registry=registry,
        )
        self._unreadable = Counter(
            "hone_operator_unreadable_objects_total",
            "Times that an object was skipped because it is too large, nested too deep or not JSON.",
            ["kind", "reason"],
            registry=registry,
        )
        for wrong in API_ERRORS:
            self._api_errors.labels(wrong)
        for kind in KINDS:  # zeros from the start: a rate needs a first value
            self._internal.labels(kind)
            self._refused.labels(kind)
            for reason in REASONS:
                self._unreadable.labels(kind, reason)
            self._durations.labels(kind)
            self._errors.labels(kind)

    def _job_metrics(self) -> None:
        registry = self.registry
        self._ended = Counter(
            "hone_jobs_finished_total",
            "FineTuneJobs that ended, and who can fix a failure.",
            ["namespace", "result", "reason", "cause"],
            registry=registry,
        )
        self._waits = Histogram(
            "hone_job_queue_wait_seconds",
            "Time from a FineTuneJob's creation until the pods of its first attempt were scheduled.",
            ["namespace", "method"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self._runs = Histogram(
            "hone_job_duration_seconds",
            "Time from the start of a FineTuneJob's first attempt to its end.",
            ["namespace", "method"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )

    def reconciled(self, key: Key, duration: float) -> None:
        """Count a successful reconcile that took `duration` seconds."""
        self._durations.labels(key.kind).observe(duration)
        body = self._cache.get(key.kind, key.namespace, key.name)
        if key.kind == "FineTuneJob" and body is not None:
            self._count_transitions(body)

    def failed(self, key: Key, error: BaseException) -> None:
        """Count a failed reconcile; the queue retries it."""
        self._errors.labels(key.kind).inc()
        if wrong := api_error(error):
            self._api_errors.labels(wrong).inc()
        log.warning("%s: %s: %s", key, type(error).__name__, error)

    def internal_error(self, key: Key, error: BaseException) -> None:
        """Count a reconcile that failed because of a bug in the operator."""
        self._internal.labels(key.kind).inc()
        log.error("%s: the operator failed", key, exc_info=error)

    def status_refused(self, key: Key) -> None:
        """Count a status that the API server refused."""
        self._refused.labels(key.kind).inc()

    def deaf(self, kind: str) -> None:
        """Count a watch that delivered nothing."""
        self._deaf.labels(kind).inc()

    def certificates(self, ends: Mapping[str, float]) -> None:
        """Note when the certificates expire that are served from now on."""
        for name, at in ends.items():
            self._certificate_ends.labels(name).set(at)

    def unreadable(self, kind: str, reason: str) -> None:
        """Count an object that was skipped; see `decoding`."""
        self._unreadable.labels(kind, reason).inc()

    def forget(self, uid: str) -> None:
        """Forget a deleted object."""
        self._admitted.discard(uid)
        self._finished.discard(uid)

    def _forget_namespaces(self) -> None:
        """Drop counters and histograms of namespaces without objects of ours; they would stay until a restart."""
        here = {body["metadata"]["namespace"] for kind in KINDS for body in self._cache.items(kind)}
        for namespace in self._namespaces - here:
            for metric in (self._ended, self._waits, self._runs):
                metric.remove_by_labels({"namespace": namespace})
        self._namespaces &= here

    def _count_transitions(self, body: Body) -> None:
        meta, status = body["metadata"], body["status"]
        self._namespaces.add(meta["namespace"])
        labels = (meta["namespace"], body["spec"].get("method", "SFT"))
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        admitted = _became_true(conditions, ConditionType.ADMITTED)
        first = len(status.get("attempts") or ()) == 1
        if first and admitted and admitted >= self._since and meta["uid"] not in self._admitted:
            self._admitted.add(meta["uid"])
            self._waits.labels(*labels).observe(
                max(0.0, admitted - (epoch_seconds(meta["creationTimestamp"]) or admitted))
            )
        ended = _became_true(conditions, ConditionType.FINISHED)
        if ended and ended >= self._since and meta["uid"] not in self._finished:
            self._finished.add(meta["uid"])
            result = "Succeeded" if _became_true(conditions, ConditionType.SUCCEEDED) else "Failed"
            reason = (status.get("failure") or {}).get("code", result)
            self._ended.labels(meta["namespace"], result, reason, cause_of(reason)).inc()
            if start := epoch_seconds(status.get("startTime")):
                self._runs.labels(*labels).observe(max(0.0, ended - start))

    def application(self) -> web.Application:
        """GET /metrics, as text or OpenMetrics."""
        app = web.Application()
        app.router.add_get("/metrics", self._scrape)
        return app

    async def _scrape(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(",".join(request.headers.getall("Accept", [])))
        self._forget_namespaces()
        # Tens of thousands of samples take a while: not in the event loop.
        body = await asyncio.to_thread(encode, self.registry)
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response


def api_error(error: BaseException) -> str | None:
    """What is wrong with the API server, one of API_ERRORS; None: it has answered as it should."""
    if isinstance(error, ClusterError):
        if WEBHOOK_FAILED in error.message:
            return "Webhook"
        return "Throttled" if error.status == 429 else "ServerError" if error.status >= 500 else None
    return "Unreachable" if isinstance(error, aiohttp.ClientError | OSError | TimeoutError) else None


def _became_true(conditions: dict[str, Body], kind: ConditionType) -> float | None:
    condition = conditions.get(kind)
    if condition is None or condition["status"] != "True":
        return None
    return epoch_seconds(condition.get("lastTransitionTime"))
