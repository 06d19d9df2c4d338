"""Watches of the API server that never end: each begins where the last one stopped, or after a new comparison of lists.

Every object is parsed by itself, within the limits of `decoding`: one that is unreadable is noted and passed over, and
the watch goes on.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import ClusterError, NotFoundError
from hone_operator.objects import decoding
from hone_operator.objects.cache import strip
from hone_operator.objects.decoding import Skipped, UnreadableError

log = logging.getLogger(__name__)
GONE = 410
REFUSALS = (401, 403, 404)
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between attempts to watch; the last one repeats. A refusal that outlasts them ends the operator."""
CHANGES = ("ADDED", "MODIFIED", "DELETED")
Note = Callable[[str, Skipped], None]


class ExpiredError(Exception):
    """The watch cannot go on from its version: lists are compared first."""


@dataclass
class Reflector:
    """The watch of one kind.

    Args:
        namespace: None: all.
        take: called with each object, stripped, and whether it was deleted. An error of its own costs that event.
        is_known: whether nothing is new about an object that was not stripped yet.
        compare: brings what a watch would miss, and gives the resourceVersion that it was read at.
        version: where the first watch begins; None: after `compare`.
        may_lack: whether the API server may have no such kind.
    """

    cluster: Cluster
    kind: str
    namespace: str | None
    selector: str
    take: Callable[[str, Mapping[str, Any], bool], None]
    is_known: Callable[[str, Mapping[str, Any]], bool]
    compare: Callable[[], Awaitable[str]]
    note: Note
    version: str | None = None
    may_lack: bool = False
    metadata_only: bool = False
    _watching: asyncio.Task[None] | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)
    """In succession: a watch that the API server accepts begins the count again, however it ends."""
    _refusals: int = field(default=0, init=False)
    """In succession: an API server that was away for long may refuse at first what it allows."""

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            ClusterError: the API server refuses it, and did so for a minute: rights or definitions that a release
                replaces are back by then.
        """
        while True:
            try:
                if self.version is None:
                    self.version = await self.compare()
                self._watching = asyncio.create_task(self._watch(self.version))
                await self._ended(self._watching)
            except ExpiredError as error:
                log.info("the watch of %s begins again with a comparison of lists: %s", self.kind, error)
                self.version = None
            except (ClusterError, aiohttp.ClientError, TimeoutError) as error:
                if isinstance(error, NotFoundError) and self.may_lack:
                    self._failures = len(PAUSES)
                else:
                    self._failed(error)
            await asyncio.sleep(PAUSES[min(max(self._failures, 1), len(PAUSES)) - 1])

    def _failed(self, error: Exception) -> None:
        if isinstance(error, ClusterError) and error.status == GONE:
            self.version = None
        self._refusals += 1 if isinstance(error, ClusterError) and error.status in REFUSALS else -self._refusals
        if self._refusals > len(PAUSES):
            raise error
        level = logging.WARNING if self._failures else logging.INFO
        log.log(level, "the watch of %s ended and begins again: %s", self.kind, error)
        self._failures += 1

    def _accepted(self) -> None:
        self._failures = self._refusals = 0

    def begin_again(self) -> None:
        """End the present watch; another one begins."""
        if self._watching:
            self._watching.cancel()

    async def _ended(self, watching: asyncio.Task[None]) -> None:
        """Wait for the end of a watch. That it was cancelled by `begin_again` is no failure."""
        try:
            await asyncio.wait({watching})
        finally:
            watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            watching.result()

    async def _watch(self, version: str) -> None:
        lines = self.cluster.watch(
            self.kind, self.namespace, self.selector, version, self.metadata_only, self._accepted
        )
        async with contextlib.aclosing(lines) as events:
            async for line in events:
                self.receive(line)

    def receive(self, line: bytes) -> None:
        """Take one event.

        Raises:
            ExpiredError: the event says that the watch cannot go on.
        """
        try:
            event = decoding.decode(line, decoding.MAX_BYTES + decoding.ENVELOPE)
            kind, body = decoding.shaped(self._stripped, event)
        except UnreadableError as error:
            identity = decoding.identity(line)
            self.note(self.kind, Skipped(error.reason, error.message, identity))
            kind, body = "", {"metadata": identity}
        if kind in CHANGES:
            try:
                self.take(self.kind, body, kind == "DELETED")
            except Exception:  # the next comparison of lists brings what is not in the cache
                log.exception("an event about a %s is lost", self.kind)
        self.version = body["metadata"].get("resourceVersion") or self.version

    def _stripped(self, event: Any) -> tuple[str, dict[str, Any]]:
        """Type and object of an event."""
        kind, body = event["type"], event["object"]
        if kind == "ERROR":
            raise ExpiredError(body.get("message"))
        if kind not in CHANGES or (kind != "DELETED" and self.is_known(self.kind, body)):
            return "BOOKMARK", {"metadata": {"resourceVersion": body["metadata"].get("resourceVersion")}}
        return kind, strip(self.kind, body)
