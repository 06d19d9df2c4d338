"""A loopback port that forwards to a port of a pod, like `kubectl port-forward`."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hone_cli.reach.guard import LOOPBACK

_CHUNK = 2**16
Stream = Callable[[], tuple[Any, Callable[[], None]]]
"""Opens one connection into the pod: (socket, function that closes it)."""


@dataclass
class Tunnel:
    """Listens until closed; each connection opens its own connection into the pod."""

    open_stream: Stream
    port: int = 0
    _listener: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="tunnel", daemon=True).start()

    @property
    def url(self) -> str:
        """The URL on which it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    def close(self) -> None:
        """Accept no more connections."""
        with contextlib.suppress(OSError):  # wakes the waiting accept, which would take one more
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        try:
            far, close = self.open_stream()
        except Exception:
            # The client sees the connection close, and reports it; the pod's state says why.
            near.close()
            return
        back = threading.Thread(target=_pump, args=(far, near), daemon=True)
        back.start()
        _pump(near, far)
        back.join()
        close()
        near.close()


def _pump(source: Any, target: Any) -> None:
    """Copy bytes in one direction until it ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
