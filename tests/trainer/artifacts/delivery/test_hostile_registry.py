"""Answers of a registry, or of its token server, that no registry gives: each is a failure with a code."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from hone_trainer.artifacts.delivery.registry import ImageRepository
from hone_trainer.endpoints.addresses import AllowedNetwork
from hone_trainer.errors import TrainerError

pytestmark = [pytest.mark.trainer, pytest.mark.attack("registry")]
DEEP = b"[" * 50_000
DIGEST = f"sha256:{'0' * 64}"


@contextlib.contextmanager
def registry(
    answer: Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]],
) -> Iterator[ImageRepository]:
    """A repository on loopback whose every answer is that of a function."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    yield ImageRepository(host, "m", AllowedNetwork(allow_private=True), None, math.inf)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("length", ["banana", "9" * 5000, "-5", "1_0", "٣"])
def test_a_size_without_a_number_is_not_that_of_the_blob(length: str) -> None:
    shown = length.encode().decode("latin-1")
    with registry(lambda _: (200, {"Content-Length": shown}, b"")) as place:
        assert place.size_of(DIGEST) == -1


def test_an_error_that_is_nested_too_deeply_is_one_without_words() -> None:
    with registry(lambda _: (400, {}, DEEP)) as place, pytest.raises(TrainerError) as caught:
        place.manifest("v1")
    assert caught.value.code == "DestinationRefused"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (json.dumps({"token": "a\nX-Evil: b"}).encode(), "DestinationRefused"),
        (json.dumps({"token": "\u0663\u4e2d"}).encode(), "DestinationRefused"),
        (DEEP, "DestinationDenied"),
    ],
)
def test_a_token_that_no_header_can_have_is_refused(body: bytes, code: str) -> None:
    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if request.path.startswith("/token"):
            return 200, {}, body
        realm = f"http://{request.headers['Host']}/token"
        return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="r"'}, b"{}"

    with registry(answer) as place, pytest.raises(TrainerError) as caught:
        place.manifest("v1")
    assert caught.value.code == code
