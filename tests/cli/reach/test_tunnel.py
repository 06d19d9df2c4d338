"""A port of loopback that leads elsewhere."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from aiohttp import web
from kubernetes import client
from support.servers.app_server import running

from hone_cli.errors import CommandError
from hone_cli.reach.kube import Kube
from hone_cli.reach.tunnel import Tunnel
from hone_cli.review.folder import Folder
from hone_cli.review.remote import Remote

pytestmark = pytest.mark.trainer


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that gives back what it gets, and then the end of it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_bytes_come_back_over_several_connections_at_once(echo):
    closed = []

    def stream():
        far = socket.create_connection(("127.0.0.1", echo))
        return far, lambda: (far.close(), closed.append(1))

    tunnel = Tunnel(stream)
    connections = [socket.create_connection(("127.0.0.1", tunnel.port)) for _ in range(4)]
    for number, connection in enumerate(connections):
        connection.sendall(bytes([number]) * 100_000)
        connection.shutdown(socket.SHUT_WR)
    for number, connection in enumerate(connections):
        found = b"".join(iter(lambda c=connection: c.recv(65536), b""))
        assert found == bytes([number]) * 100_000
        connection.close()
    tunnel.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", tunnel.port))


async def forward(request: web.Request) -> web.StreamResponse:
    """As the kubelet forwards a port: a byte for the channel; what comes is sent back, and "break" breaks all."""
    far = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
    await far.prepare(request)
    for channel in b"\0\1":
        await far.send_bytes(bytes([channel]) + struct.pack("<H", int(request.query["ports"])))
    async for message in far:
        if message.data == b"\0break":
            there = request.transport.get_extra_info("socket")
            there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
            request.transport.abort()
            break
        await far.send_bytes(message.data)
    return far


def test_a_way_into_the_pod_that_breaks_ends_the_connection(capfd):
    """Whoever reads would wait for an hour: the reader of an upload waits that long for an answer."""
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/team/pods/one/portforward", forward)
    with running(app) as server:
        kube = Kube("team", client.Configuration(host=server))
        tunnel = Tunnel(lambda: kube.stream("one"))
        with socket.create_connection(("127.0.0.1", tunnel.port), timeout=30) as near:
            near.sendall(b"all is well")
            assert near.recv(100) == b"all is well"
            near.sendall(b"break")
            assert near.recv(100) == b""
        tunnel.close()
    assert capfd.readouterr().err == ""


def test_a_way_that_broke_keeps_no_connection():
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/team/pods/one/portforward", forward)
    with running(app) as server:
        far, close = Kube("team", client.Configuration(host=server)).stream("one")
        websocket = close.__self__.websocket
        assert websocket.sock
        far.sendall(b"break")
        assert far.recv(100) == b""
        deadline = time.monotonic() + 30
        while websocket.sock:  # of the other thread, which may be about to close it
            assert time.monotonic() < deadline
            time.sleep(0.01)
        close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="an option of Linux")
def test_bytes_that_nobody_acknowledges_are_given_up_after_a_minute():
    """A computer that slept, or changed its network: without it, TCP repeats them for a quarter of an hour."""
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/team/pods/one/portforward", forward)
    with running(app) as server:
        kube = Kube("team", client.Configuration(host=server))
        far, close = kube.stream("one")
        there = close.__self__.websocket.sock
        assert there.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        assert there.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        close()
        far.close()


def test_a_pod_that_is_gone_is_reported_with_what_to_do():
    def stream():
        raise ConnectionError("the pod is gone")

    tunnel = Tunnel(stream)
    with pytest.raises(CommandError, match="start hone again; what was decided is kept"):
        Remote(tunnel.url, "token").state()
    tunnel.close()


def test_a_folder_that_is_none_is_reported(tmp_path):
    with pytest.raises(CommandError, match="is not a batch"):
        Folder(tmp_path, "ann").state()
