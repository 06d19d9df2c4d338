"""Two servers that say which version they are, at addresses that an EndpointSlice may have."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hone_dev.tools.shell import run

LINK = "hone-canary"
NETWORK = "10.215.0.{}"
"""The API server refuses addresses of loopback in EndpointSlices."""
PORT = 8000


class Version(ThreadingHTTPServer):
    """Answers each request with its name, and counts them."""

    daemon_threads = True

    def __init__(self, name: str, address: str) -> None:
        super().__init__((address, PORT), _Answer)
        self.name, self.address, self.asked = name, address, 0
        self._lock = threading.Lock()

    def count(self) -> None:
        """One more request."""
        with self._lock:
            self.asked += 1


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: two would wait for each other's acknowledgement
    server: Version

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.count()
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": self.server.name}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the gateway keeps a log."""


@contextmanager
def serve(names: list[str]) -> Iterator[list[Version]]:
    """A server for each name, on a network of its own, until the block ends. Needs root."""
    run("ip", "link", "add", LINK, "type", "bridge")
    try:
        run("ip", "link", "set", LINK, "up")
        with ExitStack() as stack:
            servers = []
            for number, name in enumerate(names, 1):
                run("ip", "address", "add", f"{NETWORK.format(number)}/24", "dev", LINK)
                servers.append(stack.enter_context(Version(name, NETWORK.format(number))))
                threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
                stack.callback(servers[-1].shutdown)
            yield servers
    finally:
        run("ip", "link", "delete", LINK)
