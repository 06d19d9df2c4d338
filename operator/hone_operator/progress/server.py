"""HTTPS endpoint for reports; Kubeflow Trainer's protocol (KEP-2779) with our own path and further fields.

Answers: 200 with the report as it was understood; 401 no valid token; 403 not this job's pod; 404 no such job;
409 the job has ended; 413 more than 64 KiB; 422 not a report (all errors told); 429 too many; 503 try again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import Protocol

from aiohttp import web
from pydantic import ValidationError

from hone_api import GROUP, VERSION
from hone_api.report import MAX_REPORT_BYTES, ProgressReport
from hone_operator.desired import names
from hone_operator.progress.auth import Authenticator, Caller
from hone_operator.progress.binding import Chain, Object, Refusal, attempt_of, labelled_attempt
from hone_operator.progress.ratelimit import RateLimit
from hone_operator.progress.store import ProgressStore

PATH = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/finetunejobs/{{name}}/status"
BODY_SECONDS = 10
MAX_TOKEN_BYTES = 8192
log = logging.getLogger(__name__)


class Directory(Protocol):
    """What the server must know of the cluster; `kind` is FineTuneJob, Job or Pod."""

    def cached(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object as last seen by a watch."""

    async def read(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object as the API server has it now: a pod's first report can be faster than our watch."""


class ProgressServer:
    """Authenticates a report, binds it to an attempt and puts it in the store."""

    def __init__(self, authenticator: Authenticator, directory: Directory, store: ProgressStore):
        self._authenticator = authenticator
        self._directory = directory
        self._store = store
        self._limit = RateLimit()

    def application(self) -> web.Application:
        """The application, without a socket."""
        app = web.Application(client_max_size=MAX_REPORT_BYTES)
        app.router.add_post(PATH, self._post)
        return app

    async def start(self, host: str, port: int, tls: ssl.SSLContext) -> web.AppRunner:
        """Serve until the runner's `cleanup()`."""
        runner = web.AppRunner(self.application(), access_log=None, keepalive_timeout=75, shutdown_timeout=5)
        await runner.setup()
        await web.TCPSite(runner, host or None, port, ssl_context=tls).start()
        return runner

    async def _post(self, request: web.Request) -> web.Response:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        try:
            caller = await self._authenticate(request)
            if caller is None:
                return _refuse(Refusal(401, "Unauthorized", "a token of the pod, for our audience, is required"))
            attempt_or_refusal, uid = await self._bind(caller, namespace, name)
        except Exception as error:
            log.warning("report for %s/%s cannot be checked: %s", namespace, name, type(error).__name__)
            return _refuse(Refusal(503, "ServiceUnavailable", "the API server cannot be asked just now; try again"))
        if isinstance(attempt_or_refusal, Refusal):
            return _refuse(attempt_or_refusal)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                report = ProgressReport.model_validate_json(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return _refuse(Refusal(413, "RequestEntityTooLarge", f"a report has at most {MAX_REPORT_BYTES} bytes"))
        except TimeoutError:
            return _refuse(Refusal(408, "Timeout", f"the body did not arrive within {BODY_SECONDS} s"))
        except ValidationError as error:
            return _refuse(Refusal(422, "Invalid", _all_errors(error)))
        self._store.accept(uid, (namespace, name), attempt_or_refusal, report)
        return web.json_response(report.model_dump(mode="json", by_alias=True, exclude_none=True))

    async def _authenticate(self, request: web.Request) -> Caller | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_BYTES:
            return None
        return await self._authenticator.authenticate(token.strip())

    async def _bind(self, caller: Caller, namespace: str, name: str) -> tuple[int | Refusal, str]:
        """(attempt or refusal, uid of the job). Nobody learns which jobs exist in another namespace."""
        if caller.namespace != namespace:
            return Refusal(403, "Forbidden", "a pod reports for jobs of its own namespace only"), ""
        if not self._limit.allow(caller.pod_uid, time.monotonic()):
            return Refusal(429, "TooManyRequests", "a pod may send two reports a second"), ""
        job = self._directory.cached("FineTuneJob", namespace, name)
        if job is None:
            return Refusal(404, "NotFound", f"there is no finetunejob {name} in {namespace}"), ""
        return attempt_of(caller, await self._chain(caller, job)), job["metadata"]["uid"]

    async def _chain(self, caller: Caller, job: Object) -> Chain:
        pod = await self._find("Pod", caller.namespace, caller.pod_name, caller.pod_uid)
        number = labelled_attempt(pod) if pod else None
        if number is None:
            return Chain(job, None, pod)
        return Chain(
            job, await self._find("Job", caller.namespace, names.attempt(job["metadata"]["name"], number)), pod
        )

    async def _find(self, kind: str, namespace: str, name: str, uid: str | None = None) -> Object | None:
        known = self._directory.cached(kind, namespace, name)
        if known is None or (uid and known["metadata"]["uid"] != uid):
            return await self._directory.read(kind, namespace, name)
        return known


def _all_errors(error: ValidationError) -> str:
    problems = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors(include_input=False)]
    return "; ".join(problems[:20])


def _refuse(refusal: Refusal) -> web.Response:
    body = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "reason": refusal.reason,
        "message": refusal.message,
        "code": refusal.status,
        "details": {"group": GROUP, "kind": "finetunejobs"},
    }
    headers = {"Retry-After": "5"} if refusal.status in (429, 503) else {}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response(body, status=refusal.status, headers=headers)
