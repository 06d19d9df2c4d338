"""What docs/guides/proxies-and-certificates.md says of pods: the hub by a proxy, everything else without, and the
authorities of SSL_CERT_FILE for both."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers import tls_server

from hone_api.dataset.source import S3
from hone_api.plan import Limits
from hone_trainer.endpoints import http, s3
from hone_trainer.endpoints.addresses import AllowedNetwork
from hone_trainer.store import hub

pytestmark = pytest.mark.trainer


class Proxy:
    """Notes the first line of what it is asked, and refuses it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(65536).decode().splitlines()[0])
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy()
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    yield proxy
    proxy.socket.close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tls_server.Server]:
    certificate = tls_server.certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with tls_server.serve(certificate) as server:
        server.answers["/rows.jsonl"] = (200, {}, b'{"text": "a"}\n')
        yield server


def get(url: str) -> bytes:
    """By the client of the hub, as a process that has not used it before."""
    hub.go_online()
    from huggingface_hub.utils import close_session, get_session

    close_session()
    try:
        return get_session().get(url, timeout=600).read()
    finally:
        close_session()


def test_the_hub_is_asked_by_the_proxy(proxy: Proxy) -> None:
    with pytest.raises(Exception, match="403"):
        get("https://hub.example/api/models/org/name")
    assert proxy.asked == ["CONNECT hub.example:443 HTTP/1.1"]


def test_no_proxy_is_read(proxy: Proxy, server: tls_server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", ".svc,localhost")
    assert get(f"https://localhost:{server.port}/rows.jsonl") == b'{"text": "a"}\n'
    assert proxy.asked == []


def test_other_addresses_are_not(proxy: Proxy, server: tls_server.Server, tmp_path: Path) -> None:
    url = f"https://localhost:{server.port}/rows.jsonl"
    http.Client(Limits(allow_private_addresses=True)).download(url, tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").read_bytes() == b'{"text": "a"}\n'
    assert proxy.asked == []


def test_buckets_are_not(proxy: Proxy, server: tls_server.Server) -> None:
    """botocore itself would ask the proxy: it reads the environment."""
    server.answers["/data/rows.jsonl"] = (200, {"Content-Length": "14"}, b'{"text": "a"}\n')
    place, keys = S3(endpoint=f"https://localhost:{server.port}"), {s3.KEY: "id", s3.SECRET: "secret"}
    carrier = s3.Carrier(AllowedNetwork(allow_private=True))
    client = s3.client(place, keys, carrier)
    assert client.get_object(Bucket="data", Key="rows.jsonl")["Body"].read() == b'{"text": "a"}\n'
    assert proxy.asked == []

    client.meta.events.unregister("before-send.s3", carrier)
    with pytest.raises(Exception, match="proxy"):
        client.get_object(Bucket="data", Key="rows.jsonl")
    assert proxy.asked[0] == f"CONNECT localhost:{server.port} HTTP/1.0"


def test_other_authorities_are_not_trusted(server: tls_server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        get(f"https://localhost:{server.port}/rows.jsonl")
