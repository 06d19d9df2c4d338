"""Takes metrics that ask for a repetition of a Model's job; whoever reports is answered once the status has the metric.

Answers: 200 with whether a job is asked for and what it waits for; 401 no valid token; 403 not one of
spec.retrain.requesters; 404 no such Model; 409 it has no spec.retrain; 413 more than 64 KiB; 422 not a metric;
429 too many; 503 try again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from aiohttp import web

from hone_api.contract.metric_report import AUDIENCE, MAX_METRIC_BYTES, Reading, read_metric
from hone_api.contract.status_json import RetrainReportJson
from hone_operator.progress.answers import bearer, read
from hone_operator.progress.auth import Account, AccountAuthenticator
from hone_operator.progress.binding import Object, ReportRefusedError
from hone_operator.progress.inbox import Inbox, answer, is_recorded
from hone_operator.progress.ratelimit import RateLimit
from hone_operator.times import format_time

RECORD_SECONDS = 8.0
"""Until a report that no status has yet is refused. With `BODY_SECONDS` less than `IDLE_SECONDS` of the connection."""
LOOK_SECONDS = 0.05
TOO_MANY = "a ServiceAccount may report 10 metrics of a Model, then one in 5 s; of all Models, 5 a second"
NOT_LISTED = "is not one of spec.retrain.requesters of a Model of this name in namespace"


class WatchedModels(Protocol):
    """The Models that the operator watches."""

    def cached(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object as last seen by a watch, or as the operator wrote it a moment ago."""


class MetricReports:
    """Authenticates who reports, asks the Model whether they may, and waits until its status has the report."""

    def __init__(
        self,
        authenticator: AccountAuthenticator,
        models: WatchedModels,
        inbox: Inbox,
        request: Callable[[str, str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ):
        """
        Args:
            request: has the Model of this namespace and name decided soon.
            clock: seconds, for the limits.
        """
        self._authenticator, self._models, self._inbox = authenticator, models, inbox
        self._request, self._now, self._clock = request, now, clock
        self._accounts = RateLimit(rate=5, burst=100)
        self._of_model = RateLimit(rate=0.2, burst=10)

    async def permit(self, request: web.Request) -> tuple[Account, Object]:
        """Who reports, and the Model that the report is about.

        Raises:
            ReportRefusedError: 401, 403, 404, 409, 429.
        """
        token = bearer(request)
        account = await self._authenticator.authenticate(token, request.remote or "") if token else None
        if account is None:
            words = f"a token of a ServiceAccount for the audience {AUDIENCE} is required"
            raise ReportRefusedError(401, "Unauthorized", words)
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        who, now = f"{account.namespace}/{account.name}", self._clock()
        if not self._accounts.allow(who, now):
            raise ReportRefusedError(429, "TooManyRequests", TOO_MANY)
        model = permitted(account, self._models.cached("Model", namespace, name), namespace, name)
        # Only from here on: names of 8 KiB that a stranger makes up would fill the memory.
        if not self._of_model.allow(f"{who} {namespace}/{name}", now):
            raise ReportRefusedError(429, "TooManyRequests", TOO_MANY)
        return account, model

    async def take(self, request: web.Request, permission: tuple[Account, Object]) -> dict[str, Any]:
        """Whether a job is asked for, and what it waits for.

        Raises:
            ReportRefusedError: 400, 408, 413, 422, 503.
        """
        account, model = permission
        reading = await read(request, read_metric, MAX_METRIC_BYTES)
        if reading is None:
            return {"requested": False, "message": "No alert fires any more: nothing is asked for."}
        report = report_of(reading, account, self._now())
        is_requested, message = answer(await self._recorded(model, report), report)
        return {"requested": is_requested, "message": message}

    async def _recorded(self, model: Object, report: RetrainReportJson) -> Object:
        """The Model once its status has the report."""
        meta = model["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        end = time.monotonic() + RECORD_SECONDS
        with self._inbox.waiting(meta["uid"], report):
            self._request(namespace, name)
            while not is_recorded(model, report):
                if time.monotonic() >= end:
                    words = f"the status of Model {name} does not have the report yet: try again"
                    raise ReportRefusedError(503, "ServiceUnavailable", words)
                await asyncio.sleep(LOOK_SECONDS)
                live = self._models.cached("Model", namespace, name)
                if live is None or live["metadata"]["uid"] != meta["uid"]:
                    raise ReportRefusedError(404, "NotFound", f"Model {name} was deleted")
                model = live
        return model


def permitted(account: Account, model: Object | None, namespace: str, name: str) -> Object:
    """The Model, if this account may ask for a repetition of its job.

    Whoever is not listed learns nothing about Models of another namespace.

    Raises:
        ReportRefusedError: 403, 404, 409.
    """
    if model is not None and model["metadata"].get("deletionTimestamp"):
        model = None
    retrain = (model["spec"].get("retrain") if model else None) or {}
    if model is not None and any(_is(account, entry, namespace) for entry in retrain.get("requesters") or ()):
        return model
    who = f"ServiceAccount {account.name} of namespace {account.namespace}"
    if account.namespace == namespace and model is None:
        raise ReportRefusedError(404, "NotFound", f"Model {name} does not exist in namespace {namespace}")
    if account.namespace == namespace and not retrain:
        raise ReportRefusedError(409, "Conflict", f"Model {name} has no spec.retrain, which names the job to repeat")
    raise ReportRefusedError(403, "Forbidden", f"{who} {NOT_LISTED} {namespace}")


def _is(account: Account, entry: Mapping[str, Any], namespace: str) -> bool:
    return (entry.get("namespace") or namespace, entry.get("serviceAccount")) == (account.namespace, account.name)


def report_of(reading: Reading, account: Account, now: datetime) -> RetrainReportJson:
    """The report as the status has it; a time in the future counts as now."""
    since = min(reading.since or now, now).astimezone(UTC)
    report: RetrainReportJson = {
        "metric": reading.metric,
        "by": f"{account.namespace}/{account.name}",
        "since": format_time(since),
    }
    if reading.value is not None:
        report["value"] = reading.value
    if reading.reason is not None:
        report["reason"] = reading.reason
    return report
