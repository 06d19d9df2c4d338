"""What `hone` asks of an API server, and what it says where there is none."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from hone_cli.errors import CommandError
from hone_cli.reach.kube import Kube

pytestmark = pytest.mark.pure


def test_a_missing_kubeconfig_is_one_sentence_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "absent"))
    with pytest.raises(CommandError) as refused:
        Kube.load(None, None)
    assert str(refused.value).endswith("found. Set KUBECONFIG, or name a --context.")
    assert ".." not in str(refused.value)


class ClockServer(BaseHTTPRequestHandler):
    """An API server whose clock differs from that of this computer; keeps what is written to it."""

    written: Any = None

    def date_time_string(self, timestamp: float | None = None) -> str:
        return "Fri, 02 Jan 2026 03:04:05 GMT"

    def do_GET(self) -> None:
        self.answer({"major": "1", "minor": "34"} | {name: "" for name in VERSION_FIELDS})

    def do_PATCH(self) -> None:
        type(self).written = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({})

    def answer(self, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        pass


VERSION_FIELDS = ("buildDate", "compiler", "gitCommit", "gitTreeState", "gitVersion", "goVersion", "platform")


def test_a_request_has_the_time_of_the_api_server() -> None:
    """A clock that is ahead would put the request off, one that is behind would lose it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), ClockServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        Kube("team", client.Configuration(host=address)).request_retraining("tutor")
        server.shutdown()
    assert ClockServer.written["metadata"]["annotations"] == {"hone.dev/retrain-requested-at": "2026-01-02T03:04:05Z"}
