"""A web server on loopback with a certificate of its own, which notes what it is asked."""

from __future__ import annotations

import datetime
import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAMES = ("data.test", "other.test", "localhost")


def certificate(folder: Path) -> Path:
    """A self-signed certificate for NAMES, with its key, in a file of the folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "data.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in NAMES]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


class Server:
    """Answers by `answers`: path -> (status, headers, body); 304 to who has the ETag. Notes what it was asked.

    With the header Accept-Ranges it gives ranges, and 412 to who asks for another ETag.
    """

    def __init__(self, certificate: Path, address: str = "127.0.0.1", port: int = 0):
        server = self
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.requests: list[tuple[str, str, str, str | None]] = []
        """(path, Host, local address, Authorization)"""
        self.ranges: list[tuple[int, int]] = []
        """Asked and sent: the first byte, and how many were sent."""
        self.trouble: list[int | str] = []
        """For answers with ranges, in turn: break off after so many bytes, or say 503 and this Retry-After."""
        self.connections = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def do_GET(self) -> None:
                local = self.connection.getsockname()[0]
                server.requests.append((self.path, self.headers["Host"], local, self.headers["Authorization"]))
                status, headers, body = server.answers.get(self.path, (404, {}, b""))
                mark = headers.get("ETag")
                if mark and self.headers["If-None-Match"] == mark:
                    status, body = 304, b""
                asked = self.headers["Range"] if status == 200 and "Accept-Ranges" in headers else None
                if asked:
                    self.give_range(asked, headers, body)
                    return
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                if not {"Content-Length", "X-Endless", "X-No-Length"} & headers.keys():
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                    while "X-Endless" in headers:
                        self.wfile.write(b"x" * 65536)
                except OSError:
                    pass

            def give_range(self, asked: str, headers: dict[str, str], body: bytes) -> None:
                begin, end = (int(edge) for edge in asked.removeprefix("bytes=").split("-"))
                trouble = server.trouble.pop(0) if server.trouble and end else None
                if isinstance(trouble, str):
                    self.send_response(503)
                    headers, piece = {"Retry-After": trouble}, b""
                elif self.headers["If-Match"] not in (None, headers.get("ETag")):
                    self.send_response(412)
                    headers, piece = {}, b""
                elif begin >= len(body):
                    self.send_response(416)
                    headers, piece = {"Content-Range": f"bytes */{len(body)}"}, b""
                else:
                    self.send_response(206)
                    piece = body[begin : end + 1]
                    last = begin + len(piece) - 1
                    headers = {**headers, "Content-Range": f"bytes {begin}-{last}/{len(body)}"}
                for key, value in {**headers, "Content-Length": str(len(piece))}.items():
                    self.send_header(key, value)
                self.end_headers()
                sent = piece if trouble is None else piece[: int(trouble)]
                server.ranges.append((begin, len(sent)))
                self.close_connection = len(sent) < len(piece)
                self.wfile.write(sent)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer((address, port), Handler)
        self.port = self.http.server_address[1]
        _secure(self.http, certificate)


@contextmanager
def serve(certificate: Path) -> Iterator[Server]:
    """A server that runs until the end of the block."""
    found = Server(certificate)
    with _running(found.http):
        yield found


@contextmanager
def also_at(address: str, server: Server, certificate: Path) -> Iterator[None]:
    """The same answers at another address, at the same port."""
    other = http.server.ThreadingHTTPServer((address, server.port), server.http.RequestHandlerClass)
    _secure(other, certificate)
    with _running(other):
        yield


def _secure(server: http.server.ThreadingHTTPServer, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)


@contextmanager
def _running(server: http.server.ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()
