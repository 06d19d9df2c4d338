"""HTTPS endpoint for reports: Kubeflow Trainer's protocol (KEP-2779) with our own path and additional fields.

Answers: 200 with the report as understood; 401 no valid token; 403 not this job's pod; 404 no such job;
409 the job has ended; 413 more than 64 KiB; 422 not a report (lists all errors); 429 too many; 503 try again.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

from aiohttp import web

from hone_api import GROUP, VERSION
from hone_api.contract.report import MAX_REPORT_BYTES, ProgressReport
from hone_operator.desired.core import names
from hone_operator.desired.staging.encode import COMPONENT as ENCODE
from hone_operator.desired.version.deliver import COMPONENT as DELIVER
from hone_operator.progress.answers import bearer, read, refuse
from hone_operator.progress.auth import Authenticator, Caller, TooManyReviewsError
from hone_operator.progress.binding import Chain, Object, ReportRefusedError, attempt_of, labelled_attempt, works_for
from hone_operator.progress.connections import IDLE_SECONDS, BoundedSite, Connections, peer_of
from hone_operator.progress.numbers import Latest, Origin, reached_before, remembered
from hone_operator.progress.ratelimit import RateLimit
from hone_operator.progress.refusals import HttpLog, RefusalCounter
from hone_operator.progress.store import Key, ProgressStore

PATH = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/finetunejobs/{{name}}/status"
ENCODING_PATH = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/encodings/{{name}}/status"
"""`name` is that of a Job that encodes rows for all runs that use them."""
DELIVERY_PATH = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/deliveries/{{name}}/status"
"""`name` is that of a Job that copies a ModelVersion."""
HTTP_LOG = f"{__name__}.http"


class Directory(Protocol):
    """What the server needs to know about the cluster; `kind` is FineTuneJob, Job or Pod."""

    def cached(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object as last seen by a watch."""

    async def read(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object as the API server has it at present: a pod's first report can arrive before our watch sees the
        pod."""


@dataclass(frozen=True)
class Bound:
    """Whose progress a report is."""

    uid: str
    """Of the FineTuneJob, or of the Job that encodes or delivers."""
    key: Key | None
    """The FineTuneJob whose status changes; None: those who wait look for themselves."""
    attempt: int
    known: Latest | None
    origin: Origin


Bind = Callable[[Caller, str, str], Awaitable[Bound]]
"""Of a caller, a namespace and a name."""


class ProgressServer:
    """Authenticates a report, binds it to an attempt and puts it into the store."""

    def __init__(
        self,
        authenticator: Authenticator,
        directory: Directory,
        store: ProgressStore,
        refusals: RefusalCounter | None = None,
    ):
        self._authenticator = authenticator
        self._directory = directory
        self._store = store
        self._pods = RateLimit(rate=2, burst=20)
        self.refusals = refusals or RefusalCounter()
        self.connections = Connections(self.refusals)

    def application(self) -> web.Application:
        """The application, without a socket."""
        app = web.Application(client_max_size=MAX_REPORT_BYTES)
        app.router.add_post(PATH, self._post)
        app.router.add_post(ENCODING_PATH, self._post_encoding)
        app.router.add_post(DELIVERY_PATH, self._post_delivery)
        return app

    async def start(self, host: str, port: int, tls: ssl.SSLContext) -> web.AppRunner:
        """Serve until the runner's `cleanup()`."""
        http = logging.getLogger(HTTP_LOG)
        http.filters = [HttpLog(self.refusals)]
        runner = web.AppRunner(
            self.application(),
            access_log=None,
            logger=http,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=0,
            shutdown_timeout=5,
        )
        await runner.setup()
        await BoundedSite(runner, host, port, tls, self.connections).start()
        return runner

    async def _post(self, request: web.Request) -> web.Response:
        return await self._answer(request, self._job_and_attempt)

    async def _post_encoding(self, request: web.Request) -> web.Response:
        return await self._answer(request, partial(self._job_of, ENCODE))

    async def _post_delivery(self, request: web.Request) -> web.Response:
        return await self._answer(request, partial(self._job_of, DELIVER))

    async def _answer(self, request: web.Request, bind: Bind) -> web.Response:
        try:
            report = await self._take(request, bind)
        except ReportRefusedError as refusal:
            self.refusals.add(f"{refusal.status} {refusal.reason}", request.remote or "")
            return refuse(refusal, "finetunejobs")
        return web.json_response(report.model_dump(mode="json", by_alias=True, exclude_none=True))

    @contextlib.contextmanager
    def _asking(self, request: web.Request) -> Iterator[None]:
        """Refuse the request if the API server gives no answer about it."""
        try:
            yield
        except ReportRefusedError:
            raise
        except TooManyReviewsError as error:
            raise ReportRefusedError(429, "TooManyRequests", str(error)) from error
        except Exception as error:
            self.refusals.add(f"API server: {type(error).__name__}", request.remote or "")
            message = "the API server cannot be asked just now; try again"
            raise ReportRefusedError(503, "ServiceUnavailable", message) from error

    async def _take(self, request: web.Request, bind: Bind) -> ProgressReport:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        with self._asking(request):
            caller = await self._authenticate(request)
            self._permit(caller, namespace)
            bound = await bind(caller, namespace, name)
        self.connections.trust(peer_of(request.transport))
        report = await read(request, ProgressReport.model_validate_json, MAX_REPORT_BYTES)
        self._store.accept(bound.uid, bound.key, bound.attempt, report, bound.known, bound.origin)
        return report

    async def _job_and_attempt(self, caller: Caller, namespace: str, name: str) -> Bound:
        job = self._directory.cached("FineTuneJob", namespace, name)
        if job is None:
            raise ReportRefusedError(404, "NotFound", f"FineTuneJob {name} does not exist in namespace {namespace}")
        chain = await self._chain(caller, job)
        attempt = attempt_of(caller, chain)
        status = job.get("status") or {}
        origin = Origin(_created(chain.pod), reached_before(status, attempt))
        return Bound(job["metadata"]["uid"], (namespace, name), attempt, remembered(status, attempt), origin)

    async def _job_of(self, component: str, caller: Caller, namespace: str, name: str) -> Bound:
        pod = await self._find("Pod", namespace, caller.pod_name, caller.pod_uid)
        job = works_for(caller, await self._find("Job", namespace, name), pod, component)
        return Bound(job["metadata"]["uid"], None, 0, None, Origin(_created(pod)))

    async def _authenticate(self, request: web.Request) -> Caller:
        token = bearer(request)
        caller = await self._authenticator.authenticate(token, request.remote or "") if token else None
        if caller:
            return caller
        raise ReportRefusedError(401, "Unauthorized", "a token of the pod, for our audience, is required")

    def _permit(self, caller: Caller, namespace: str) -> None:
        """Callers cannot learn which jobs exist in another namespace."""
        if caller.namespace != namespace:
            raise ReportRefusedError(403, "Forbidden", "a pod may report only for jobs of its namespace")
        if not self._pods.allow(caller.pod_uid, time.monotonic()):
            raise ReportRefusedError(429, "TooManyRequests", "a pod may send two reports a second")

    async def _chain(self, caller: Caller, job: Object) -> Chain:
        pod = await self._find("Pod", caller.namespace, caller.pod_name, caller.pod_uid)
        number = labelled_attempt(pod) if pod else None
        if number is None:
            return Chain(job, None, pod)
        return Chain(
            job, await self._find("Job", caller.namespace, names.attempt(job["metadata"]["name"], number)), pod
        )

    async def _find(self, kind: str, namespace: str, name: str, uid: str | None = None) -> Object | None:
        body = self._directory.cached(kind, namespace, name)
        if body is None or (uid and body["metadata"]["uid"] != uid):
            return await self._directory.read(kind, namespace, name)
        return body


def _created(pod: Object | None) -> datetime | None:
    text = pod["metadata"].get("creationTimestamp") if pod else None
    return datetime.fromisoformat(text) if text else None
