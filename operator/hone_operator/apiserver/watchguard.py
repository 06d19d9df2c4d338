"""Takes the objects of kopf's lists and watches: each separately, within the limits of `decoding`.

kopf parses with the standard library and stops the operator at the first object that cannot be parsed; it keeps a
record of each object, and starts a task for each event. It accepts an HTTP session of ours (`kopf.AiohttpSession`), so
all this is in the session's responses and nothing of kopf is patched: kopf keeps the watches open, and gets bookmarks.
`tests/operator/apiserver/test_intake.py` runs the pinned kopf against a real API server and checks that lists and
watches pass here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

import aiohttp
import kopf

from hone_operator.apiserver.cluster import PATHS
from hone_operator.objects import decoding
from hone_operator.objects.cache import strip
from hone_operator.objects.decoding import Skipped, UnreadableError

KIND_OF = {plural: kind for kind, (_, plural) in PATHS.items()}
log = logging.getLogger(__name__)
CHUNK = 2**16
GONE = 410
REFUSALS = (403, 404)
UNAVAILABLE = 503
CHANGES = ("ADDED", "MODIFIED", "DELETED")
ENVELOPE = 256
"""Maximum bytes of a watch event around its object."""
Note = Callable[[str, Skipped], None]


class Receiver(Protocol):
    """What lists and watches are read for."""

    @property
    def note(self) -> Note:
        """Called with kind and object of what is skipped."""

    def is_known(self, kind: str, body: Mapping[str, Any]) -> bool:
        """Whether nothing is new about an object, because the cache has it from our own list or write."""

    def take(self, kind: str, body: Mapping[str, Any], *, is_deleted: bool) -> bool:
        """Take an object, stripped; False if a handler of kopf is there for its kind."""

    def opened(self, kind: str, response: aiohttp.ClientResponse) -> None:
        """A watch has begun; kopf begins again one that is closed."""

    def filled_at(self, kind: str, namespace: str | None) -> str | None:
        """The resourceVersion of our own list of a kind, at which kopf's watch begins without a list; None: kopf
        lists."""


def session(info: kopf.ConnectionInfo, receiver: Receiver) -> kopf.AiohttpSession:
    """A session for kopf with the same credentials."""
    to = receiver

    class Response(GuardedResponse):
        receiver = to

    connector = aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context())
    client_session = aiohttp.ClientSession(
        connector=connector, headers=info.as_http_headers(), response_class=Response, trust_env=info.trust_env
    )
    return kopf.AiohttpSession(
        server=info.server,
        aiohttp_session=client_session,
        default_namespace=info.default_namespace,
        priority=info.priority,
        expiration=info.expiration,
    )


class GuardedResponse(aiohttp.ClientResponse):
    """Reads lists and watches of our kinds object by object."""

    receiver: Receiver

    @property
    def kind(self) -> str | None:
        """The kind of the objects in a successful answer; None: something else."""
        return KIND_OF.get(self.url.name) if self.method == "GET" and self.status == 200 else None

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Like the parent; the content of a watch skips unreadable objects, and a refusal is one for the moment."""
        await super().start(connection)
        if self.method == "GET" and self.url.name in KIND_OF and self.status in REFUSALS:
            # kopf would end the operator, for all namespaces. Rights and definitions that are replaced by a release are
            # back in a moment; if they are not, kopf gives up after its retries, and the operator starts again.
            log.warning("the API server refuses to list or watch %s with %d", KIND_OF[self.url.name], self.status)
            self.status = UNAVAILABLE
        if self.kind and self.url.query.get("watch") == "true":
            # It has what kopf uses of a StreamReader.
            lines: Any = WatchLines(self.content, self.kind, self.receiver)
            self.content = lines
            self.receiver.opened(self.kind, self)
        return self

    async def json(self, **options: Any) -> Any:
        """Like the parent; the items of a list are parsed one by one and stripped, and what is known or taken is left
        out.

        kopf's first list has no items and the version of our own list, and the watch brings what changed since. If that
        version is too old, kopf lists again.
        """
        kind = self.kind
        if kind is None:
            return await super().json(**options)
        raw = await self.read()
        if version := self.receiver.filled_at(kind, _namespace(self.url.path)):
            return {"metadata": {"resourceVersion": version}, "items": []}
        try:
            listed = await decoding.decode_list_aside(
                raw, lambda item: strip(kind, item), lambda item: self.receiver.is_known(kind, item)
            )
        except UnreadableError as error:  # kopf lists again after this
            raise aiohttp.ClientPayloadError(error.message) from error
        for skipped in listed.skipped:
            self.receiver.note(kind, skipped)
        return {**listed.rest, "items": [body for body in listed.items if not _taken(self.receiver, kind, body)]}


def _namespace(path: str) -> str | None:
    """The namespace of a collection; None: all."""
    *_, folder, name, _ = path.split("/")
    return name if folder == "namespaces" else None


def _taken(receiver: Receiver, kind: str, body: Mapping[str, Any], *, is_deleted: bool = False) -> bool:
    """Whether the receiver took an object. If that fails, it counts as taken: the watch must not end, and the next
    comparison of lists brings what is not in the cache."""
    try:
        return receiver.take(kind, body, is_deleted=is_deleted)
    except Exception:
        log.exception("an event about a %s is lost", kind)
        return True


class WatchLines:
    """The content of a watch, line by line: an object that is unreadable, known or taken becomes a bookmark, which kopf
    ignores."""

    def __init__(self, content: aiohttp.StreamReader, kind: str, receiver: Receiver):
        self._content, self._kind, self._receiver = content, kind, receiver

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """One event at a time."""
        async for line in bounded_lines(self._content, decoding.MAX_BYTES + ENVELOPE):
            yield self.guarded(line) + b"\n"

    def guarded(self, line: bytes) -> bytes:
        """A bookmark in place of the event; for a kind that a handler of kopf reads, the stripped event."""
        try:
            event = decoding.decode(line, decoding.MAX_BYTES + ENVELOPE)
            return json.dumps(self._received(event)).encode()
        except UnreadableError as error:
            identity = decoding.identity(line)
            self._receiver.note(self._kind, Skipped(error.reason, error.message, identity))
            return json.dumps(_bookmark(identity)).encode()

    def _received(self, event: Any) -> Any:
        stripped = decoding.shaped(self._stripped, event)
        if stripped["type"] not in CHANGES:
            return stripped
        body = stripped["object"]
        if _taken(self._receiver, self._kind, body, is_deleted=stripped["type"] == "DELETED"):
            return _bookmark(body["metadata"])
        return {**stripped, "object": {"apiVersion": event["object"].get("apiVersion", ""), **body}}

    def _stripped(self, event: Any) -> Any:
        if event["type"] == "ERROR":
            return self._error(event["object"])
        if event["type"] not in CHANGES:
            return event
        body = event["object"]
        if event["type"] != "DELETED" and self._receiver.is_known(self._kind, body):
            return _bookmark(body["metadata"])
        return {**event, "object": strip(self._kind, body)}

    def _error(self, status: Any) -> dict[str, Any]:
        """kopf lists and watches again after 410 Gone, and ends the operator at any other error, e.g. of etcd."""
        if status.get("code") != GONE:
            log.warning("the watch of %s begins again: %s", self._kind, status.get("message"))
        return {"type": "ERROR", "object": {**status, "code": GONE}}


def _bookmark(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """An event that only says how far the watch has come."""
    version = {"resourceVersion": metadata["resourceVersion"]} if "resourceVersion" in metadata else {}
    return {"type": "BOOKMARK", "object": {"metadata": version}}


async def bounded_lines(content: aiohttp.StreamReader, limit: int) -> AsyncIterator[bytes]:
    """The lines of a stream; of a line longer than `limit` only the first `limit` + 1 bytes are kept."""
    line = bytearray()
    async for data in content.iter_chunked(CHUNK):
        *ended, rest = data.split(b"\n")
        for part in ended:
            line += part[: limit + 1 - len(line)]
            if line:
                yield bytes(line)
            line = bytearray()
        line += rest[: limit + 1 - len(line)]
    if line:
        yield bytes(line)
