"""Which connections to the progress port stay open: a caller is untrusted until one of its reports was accepted.

Everything is bounded: connections in total and by address, new connections a second, and the time until a connection
must prove itself. At a bound, the oldest unproven connection is closed. An honest report takes milliseconds, so it is
served even if it shares its address (source NAT of a node) with a hostile pod.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from hone_operator.progress.ratelimit import RateLimit
from hone_operator.progress.refusals import RefusalCounter, let_go

MAX_CONNECTIONS, MAX_OF_ADDRESS = 512, 64
NEW_A_SECOND, NEW_AT_ONCE = 100, 400
"""Connections from one address; a TLS handshake costs about a millisecond of CPU."""
PROVE_SECONDS, IDLE_SECONDS = 10, 20
"""Seconds from opening to the first accepted report (handshake, head and token), and between accepted reports."""
TLS_BUFFER_BYTES = 32 * 1024
"""asyncio gives each connection 256 KiB. A TLS record has at most 16 KiB."""

Peer = tuple[str, int]


@dataclass
class _Connection:
    close: Callable[[], None]
    deadline: asyncio.TimerHandle
    trusted: bool = False


class Connections:
    """The open connections by address, oldest first."""

    def __init__(self, refusals: RefusalCounter, most: int = MAX_CONNECTIONS, most_of_address: int = MAX_OF_ADDRESS):
        self._refusals = refusals
        self._most, self._most_of_address = most, most_of_address
        self._pace = RateLimit(rate=NEW_A_SECOND, burst=NEW_AT_ONCE)
        self._open: defaultdict[str, dict[Peer, _Connection]] = defaultdict(dict)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def admit(self, peer: Peer, close: Callable[[], None]) -> bool:
        """Whether this new connection may stay. `close` ends it at once, whatever its state."""
        address, loop = peer[0], asyncio.get_running_loop()
        if not self._pace.allow(address, loop.time()):
            self._refusals.add("connections too fast", address)
            return False
        if len(self._open[address]) >= self._most_of_address:
            self._end_oldest(address)
        elif self._count >= self._most:
            self._end_oldest(max(self._open, key=lambda a: len(self._open[a])))
        self._open[address][peer] = _Connection(close, loop.call_later(PROVE_SECONDS, self._late, peer))
        self._count += 1
        return True

    def trust(self, peer: Peer) -> None:
        """Record an accepted report: the connection may stay for the next one, and is the last to be closed."""
        if connection := self._open.get(peer[0], {}).pop(peer, None):
            connection.deadline.cancel()
            loop = asyncio.get_running_loop()
            deadline = loop.call_later(IDLE_SECONDS, self._late, peer)
            self._open[peer[0]][peer] = _Connection(connection.close, deadline, trusted=True)

    def left(self, peer: Peer) -> None:
        """Record that the connection is closed."""
        of_address = self._open.get(peer[0], {})
        if connection := of_address.pop(peer, None):
            connection.deadline.cancel()
            self._count -= 1
            if not of_address:
                del self._open[peer[0]]

    def _late(self, peer: Peer) -> None:
        connection = self._open[peer[0]][peer]
        if not connection.trusted:
            self._refusals.add("no report in time", peer[0])
        self._end(peer)

    def _end_oldest(self, address: str) -> None:
        of_address = self._open[address]
        unproved = (peer for peer, connection in of_address.items() if not connection.trusted)
        self._refusals.add("too many connections", address)
        self._end(next(unproved, next(iter(of_address))))

    def _end(self, peer: Peer) -> None:
        close = self._open[peer[0]][peer].close
        self.left(peer)
        close()


class BoundedTls(sslproto.SSLProtocol):
    """asyncio's server side of TLS, counted from the first packet and with a small buffer.

    `asyncio` reports a connection only after the handshake, when the memory is already spent.
    """

    max_size = TLS_BUFFER_BYTES

    def __init__(self, connections: Connections, handler: asyncio.Protocol, context: ssl.SSLContext):
        super().__init__(
            asyncio.get_running_loop(),
            handler,
            context,
            waiter=cast("asyncio.Future[None]", None),  # None is allowed, but typeshed does not declare it
            server_side=True,
            ssl_handshake_timeout=PROVE_SECONDS,
            ssl_shutdown_timeout=1,
        )
        self._connections = connections
        self._peer: Peer = ("", 0)
        self._unread: deque[tuple[object, object]] = getattr(handler, "_messages", deque())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake if another connection is allowed."""
        assert isinstance(transport, asyncio.Transport)
        self._peer = peer_of(transport)
        admitted = self._connections.admit(self._peer, transport.abort)
        super().connection_made(transport)
        if not admitted:
            transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Remove the connection from the counts."""
        self._connections.left(self._peer)
        super().connection_lost(exc)
        for message, _ in self._unread:  # errors that aiohttp had no time to answer
            let_go(getattr(message, "exc", None))


def peer_of(transport: asyncio.BaseTransport | None) -> Peer:
    """Address and port of the other side."""
    name = transport.get_extra_info("peername") if transport else None
    return (str(name[0]), int(name[1])) if name else ("", 0)


class BoundedSite(web.BaseSite):
    """A listening socket of an aiohttp application with bounded connections."""

    def __init__(self, runner: web.AppRunner, host: str, port: int, tls: ssl.SSLContext, connections: Connections):
        super().__init__(runner)
        self._host, self._port, self._tls, self._connections = host or None, port, tls, connections

    @property
    def name(self) -> str:
        return f"https://{self._host or '*'}:{self._port}"

    async def start(self) -> None:
        """Listen."""
        await super().start()
        handler = self._runner.server
        assert handler is not None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: BoundedTls(self._connections, handler(), self._tls), self._host, self._port, backlog=128
        )
