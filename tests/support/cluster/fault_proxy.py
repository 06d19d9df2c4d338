"""A proxy between the operator and the API server that breaks what it carries, for each namespace as it is asked to.

It numbers the writes of a namespace. At one of them, or from a stage of the job's life on, it can kill the operator
(before the write is forwarded, when it was carried out, when it was answered), answer in the API server's place, break
the connection, be silent, answer reads with what they said before, and lose, delay, repeat, swap and end the events of
watches.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from support.cluster.kube import GUARD_SECONDS, Kube

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HOP_BY_HOP = {"host", "connection", "transfer-encoding", "content-length", "authorization"}
NAMESPACE = re.compile(r"/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?(/status)?")
STAGES = ("Dataset", "staging", "encode", "train", "finish", "delete")
BEGINS = {"fetch": "staging", "encode": "encode", "training": "train"}
"""The stage that the Job of this component begins."""
TERMINAL = frozenset({"Succeeded", "Failed"})
LONGEST_LINE = 2**22
SILENCE = 40.0
"""Seconds, longer than the operator waits for an answer."""
WORDS = {409: "Conflict", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}

KILLS = ("kill before", "kill carried out", "kill answered")
REQUESTS = (*KILLS, "answer", "cut", "lose the answer", "say nothing")
READS = ("refuse reads", "refuse first watches", "old lists")
EVENTS = ("gone", "error", "broken", "end", "hide", "delay", "repeat", "swap")


@dataclass(frozen=True)
class Fault:
    """What is broken, and how often.

    Args:
        does: one of REQUESTS (to a write), READS (to lists and watches) or EVENTS (to an event of a watch).
        status: of an answer in the API server's place.
        only: the resource that it concerns ("pods"), or "status" for writes of a status; all if empty.
        times: how many writes or events in turn.
        seconds: instead of `times`: everything from the first for so long, also reads.
        words: of an answer in the API server's place.
    """

    does: str
    status: int = 0
    retry_after: int | None = None
    only: str = ""
    times: int = 1
    seconds: float = 0.0
    words: str = "of the fault proxy"

    def __post_init__(self) -> None:
        assert self.does in (*REQUESTS, *READS, *EVENTS), self.does


@dataclass
class Lane:
    """One namespace: what is broken in it and when, and what went through."""

    fault: Fault | None = None
    stage: str = ""
    """From the first write of this stage on."""
    write: int = 0
    """Or at this write, counted from 1."""
    canary: str = ""
    """What no write may contain."""
    now: str = ""
    """The stage; empty before the life has begun."""
    writes: list[str] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    """When each request that was answered in the API server's place arrived."""
    injected: int = 0
    since: float | None = None
    lists: dict[str, bytes] = field(default_factory=dict)
    """The oldest answer to each list."""
    watched: set[str] = field(default_factory=set)
    """Resources whose first watch was refused."""
    open: set[str] = field(default_factory=set)
    """Resources that have been watched."""
    wrong: list[str] = field(default_factory=list)
    """What no life may show."""
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)

    def due(self, does: tuple[str, ...], resource: str, is_status: bool = False) -> Fault | None:
        """The fault if it concerns this request or event; it is counted."""
        fault = self.fault
        if fault is None or fault.does not in does:
            return None
        if fault.only and fault.only != resource and not (fault.only == "status" and is_status):
            return None
        if fault.seconds:
            if self.since is None:
                if not self._begins:
                    return None
                self.since = time.monotonic()
            if time.monotonic() - self.since > fault.seconds:
                return None
        elif self.injected >= fault.times or not (self.injected or self._begins):
            return None
        self.injected += 1
        return fault

    @property
    def _begins(self) -> bool:
        return self._reached or len(self.writes) == self.write > 0

    @property
    def _reached(self) -> bool:
        """Whether the stage has begun. It may be over, too: the operator needs no hand to leave the first one."""
        return "" not in (self.now, self.stage) and STAGES.index(self.now) >= STAGES.index(self.stage)

    @property
    def awaits_a_list(self) -> bool:
        """Whether old lists are to begin: the operator asks for one every few seconds, and a stage may take less."""
        return self.fault is not None and self.fault.does == "old lists" and self.since is None and self._reached

    @property
    def over(self) -> bool:
        """Whether the fault has happened and nothing more of it follows."""
        if self.fault is None:
            return True
        if self.fault.seconds:
            return self.since is not None and time.monotonic() - self.since > self.fault.seconds
        return self.injected >= self.fault.times

    def note(self, method: str, resource: str, body: bytes, is_status: bool) -> None:
        """Number a write, and see which stage it begins."""
        if self.canary and self.canary.encode() in body:
            self.wrong.append(f"a credential in a {method} of {resource}")
        if method == "POST" and resource == "jobs":
            component = json.loads(body)["metadata"]["labels"]["hone.dev/component"]
            self._reach(BEGINS.get(component, STAGES[0]))
        elif method == "POST" and resource == "modelversions":
            self._reach("finish")
        self.writes.append(f"{self.now}: {method} {resource}{'/status' if is_status else ''}")

    def _reach(self, stage: str) -> None:
        self.now = max(self.now or STAGES[0], stage, key=STAGES.index)

    def check_status(self, body: bytes) -> None:
        """A terminal phase stays, an ended attempt stays, and no generation is observed again."""
        written = json.loads(body)
        if written.get("kind") != "FineTuneJob":
            return
        uid, status = written["metadata"]["uid"], written["status"]
        before = self.statuses.get(uid, {})
        self.statuses[uid] = status
        if before.get("phase") in TERMINAL and status.get("phase") != before["phase"]:
            self.wrong.append(f"{before['phase']} became {status.get('phase')}")
        if status.get("observedGeneration", 0) < before.get("observedGeneration", 0):
            self.wrong.append("an older generation was observed again")
        outcomes = [[a.get("outcome") for a in s.get("attempts", ())] for s in (before, status)]
        for earlier, later in zip(*outcomes, strict=False):
            if earlier in TERMINAL and later != earlier:
                self.wrong.append(f"an attempt that {earlier} became {later}")
        if len(outcomes[1]) < len(outcomes[0]):
            self.wrong.append("an attempt is missing")


class FaultProxy:
    """Plain HTTP on loopback to the API server's TLS; runs in a thread of its own."""

    def __init__(self, server: str, context: ssl.SSLContext):
        self._server, self._context = server, context
        self.port = 0
        self.lanes: dict[str, Lane] = {}
        """By namespace; others pass untouched."""
        self.unavailable: set[str] = set()
        """Resources outside namespaces whose requests are answered 503, e.g. `tokenreviews`."""
        self.kill: Callable[[], None] = lambda: None
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(GUARD_SECONDS)

    @classmethod
    def of(cls, kube: Kube) -> FaultProxy:
        """Towards this API server, as its administrator."""
        context = ssl.create_default_context(cafile=str(kube.folder / "ca.crt"))
        context.load_cert_chain(kube.folder / "tls.crt", kube.folder / "tls.key")
        return cls(kube.server, context)

    def kubeconfig(self) -> dict[str, Any]:
        """By which a client comes through here."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }

    def stop(self) -> None:
        """End the server and what it still forwards: a killed operator leaves its watches open."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GUARD_SECONDS)
        assert self._loop.is_closed()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._close())
        left = asyncio.all_tasks(self._loop)
        assert not left, left
        self._loop.close()

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._session.close()
        forwarding = asyncio.all_tasks() - {asyncio.current_task()}
        for task in forwarding:
            task.cancel()
        await asyncio.gather(*forwarding, return_exceptions=True)

    async def _serve(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, read_bufsize=LONGEST_LINE)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)  # 0 means for ever
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._forward(request)
        except (ConnectionResetError, aiohttp.ClientError):  # the operator is gone, ended its watch, or the API server
            return _abort(request)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        place = NAMESPACE.search(request.path)
        lane = self.lanes.get(place.group(1)) if place else None
        body = await request.read()
        if place is None and request.path.rpartition("/")[2] in self.unavailable:
            return self._answer(Lane(), Fault("answer", 503), request.method)
        if place is None or lane is None:
            return await self._pass(request, body, Lane(), "")
        resource, is_status = place.group(2), bool(place.group(4))
        if request.method in WRITES:
            lane.note(request.method, resource, body, is_status)
            return await self._write(request, body, lane, lane.due(REQUESTS, resource, is_status), is_status)
        if lane.since is not None and (fault := lane.due(("answer",), resource)):  # an outage also concerns reads
            return self._answer(lane, fault, request.method)
        if place.group(3) is None:
            if refused := lane.due(("refuse reads",), resource):
                return self._answer(lane, refused, request.method)
            if "watch" not in request.query:
                return await self._list(request, lane, resource)
            if resource not in lane.watched and (refused := lane.due(("refuse first watches",), resource)):
                lane.watched.add(resource)
                return self._answer(lane, refused, request.method)
        return await self._pass(request, body, lane, resource)

    async def _write(
        self, request: web.Request, body: bytes, lane: Lane, fault: Fault | None, is_status: bool
    ) -> web.StreamResponse:
        does = fault.does if fault else ""
        if does == "kill before":
            self.kill()
            raise web.HTTPServiceUnavailable
        if fault and does == "answer":
            return self._answer(lane, fault, request.method)
        if does == "cut":
            return _abort(request)
        if does == "say nothing":
            await asyncio.sleep(SILENCE)
            return _abort(request)
        async with self._request(request, body) as answer:
            content = await answer.read()
            if is_status and answer.status < 400:
                lane.check_status(body)
            if does == "kill carried out":
                self.kill()
            if does == "lose the answer":
                return _abort(request)
            response = _begun(answer)
            await response.prepare(request)
            await response.write(content)
            await response.write_eof()
            if does == "kill answered":
                self.kill()
            return response

    def _answer(self, lane: Lane, fault: Fault, method: str) -> web.Response:
        lane.requests.append(time.monotonic())
        reason = "AlreadyExists" if (method, fault.status) == ("POST", 409) else WORDS.get(fault.status, "Forbidden")
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": fault.status}
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        return web.json_response({**status, "message": fault.words}, status=fault.status, headers=headers)

    async def _list(self, request: web.Request, lane: Lane, resource: str) -> web.StreamResponse:
        """A list, or what it said first."""
        key = f"{request.path_qs} {request.headers.get('Accept')}"
        old = lane.lists.get(key)
        if old and lane.due(("old lists",), resource):
            return web.Response(body=old, content_type="application/json")
        async with self._request(request, b"") as answer:
            content = await answer.read()
            if answer.status == 200 and lane.fault and lane.fault.does == "old lists":
                lane.lists.setdefault(key, content)
            response = _begun(answer)
            await response.prepare(request)
            await response.write(content)
            return response

    def _request(self, request: web.Request, body: bytes) -> Any:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        timeout = aiohttp.ClientTimeout(total=None)
        url = self._server + request.raw_path
        return self._session.request(request.method, url, headers=headers, data=body or None, timeout=timeout)

    async def _pass(self, request: web.Request, body: bytes, lane: Lane, resource: str) -> web.StreamResponse:
        async with self._request(request, body) as answer:
            response = _begun(answer)
            await response.prepare(request)
            if request.query.get("watch") == "true" and answer.status == 200:
                lane.open.add(resource)
                await self._events(answer, response, lane, resource)
            else:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            return response

    async def _events(
        self, answer: aiohttp.ClientResponse, response: web.StreamResponse, lane: Lane, resource: str
    ) -> None:
        seen: list[bytes] = []
        held = b""
        async for line in answer.content:
            fault = lane.due((*EVENTS, "refuse reads"), resource)
            does = fault.does if fault else ""
            if fault and does in ENDS:
                await response.write(ENDS[does])
                return
            if does == "hide":
                continue
            if does == "swap" and not held:
                held = line
                continue
            if does == "delay":
                await asyncio.sleep(1)
            if does == "repeat":
                await response.write(b"".join(seen))
            if lane.fault and lane.fault.does == "repeat":
                seen.append(line)
            await response.write(line + held)
            held = b""
        await response.write(held)


def _error(code: int) -> bytes:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "of the fault proxy"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


ENDS = {"gone": _error(410), "error": _error(500), "broken": b'{"type": "MODIFIED", "object": {"ki\n', "end": b""}
ENDS["refuse reads"] = b""
"""What comes in an event's place before the watch ends."""


def _begun(answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status)
    for key, value in answer.headers.items():
        if key.lower() not in HOP_BY_HOP:
            response.headers[key] = value
    return response


def _abort(request: web.Request) -> web.Response:
    """Break the connection."""
    if request.transport:
        request.transport.abort()
    return web.Response()
