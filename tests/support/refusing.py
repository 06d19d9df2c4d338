"""A proxy before an API server that refuses the first watch of each list, as while a storage begins again."""

from __future__ import annotations

import http.client
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from kube import Kube

REFUSAL = {
    "kind": "Status",
    "apiVersion": "v1",
    "status": "Failure",
    "message": "storage is (re)initializing",
    "reason": "TooManyRequests",
    "details": {"retryAfterSeconds": 1},
    "code": 429,
}
"""What kube-apiserver 1.34 answers after a definition was applied."""
OF_ONE_HOP = frozenset({"connection", "host", "transfer-encoding", "accept-encoding"})
CHUNK_BYTES = 65536


@contextmanager
def refusing(kube: Kube, kubeconfig: Path, refused: list[str]) -> Iterator[None]:
    """Write a kubeconfig of the proxy to `kubeconfig`; the path of each watch that it refused goes into `refused`."""
    tls = ssl.create_default_context(cafile=str(kube.folder / "ca.crt"))
    tls.load_cert_chain(kube.folder / "tls.crt", kube.folder / "tls.key")

    class Handler(_Handler):
        host, context, paths = urlsplit(kube.server).netloc, tls, refused

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"token": "the proxy has a certificate"}}
    document = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"}
    kubeconfig.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **document}))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    host: str
    context: ssl.SSLContext
    paths: list[str]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _any(self) -> None:
        path, _, query = self.path.partition("?")
        if "watch=true" in query and path not in self.paths:
            self.paths.append(path)
            return self._refuse()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPSConnection(self.host, context=self.context)
        sent = {k: v for k, v in self.headers.items() if k.lower() not in {*OF_ONE_HOP, "authorization"}}
        with suppress(OSError):  # the operator has ended
            connection.request(self.command, self.path, body or None, sent)
            self._answer(connection.getresponse())
        connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - http.server's names

    def _refuse(self) -> None:
        body = json.dumps(REFUSAL).encode()
        self.send_response(429)
        self.send_header("Content-Type", "application/json")
        self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, answer: http.client.HTTPResponse) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in OF_ONE_HOP:
                self.send_header(name, value)
        self.send_header("Connection", "close")  # which ends the body, too
        self.end_headers()
        while part := answer.read1(CHUNK_BYTES):
            self.wfile.write(part)
        self.close_connection = True
