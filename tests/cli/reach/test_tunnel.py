"""A port of loopback that leads elsewhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from hone_cli.errors import CommandError
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
