"""The ranks of one pod find each other on the loopback interface only.

torch's TCPStore listens on all interfaces whatever its host name is, and accepts keys from anybody who connects, which
is enough to impersonate a peer. So it gets a socket that listens on 127.0.0.1.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters

BACKEND, FD = "hone-loopback", "listen_fd"
INTERFACES = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo"}
"""Without it, gloo and NCCL listen on the interface that the pod's host name resolves to."""


def listen() -> tuple[str, int]:
    """Make gloo and NCCL use the loopback interface, and open the store's socket: its endpoint and file descriptor.

    From then on, the store of rendezvous `BACKEND` with the configuration {FD: descriptor} owns the socket.
    """
    from torch.distributed.elastic.rendezvous import rendezvous_handler_registry

    rendezvous_handler_registry.register(BACKEND, _handler)
    os.environ.update(INTERFACES)
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    return f"{host}:{port}", listener.detach()


def _handler(parameters: RendezvousParameters) -> RendezvousHandler:
    from torch.distributed import TCPStore
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

    host, _, port = parameters.endpoint.rpartition(":")

    class Loopback(StaticTCPRendezvous):
        def get_backend(self) -> str:
            return BACKEND

    seconds = int(parameters.config["timeout"])
    handler = Loopback(host, int(port), 0, parameters.max_nodes, parameters.run_id, seconds)
    handler._store = TCPStore(
        host,
        int(port),
        parameters.max_nodes,
        is_master=True,
        timeout=timedelta(seconds=seconds),
        multi_tenant=True,
        master_listen_fd=parameters.config[FD],
    )
    return handler
