"""What a delivery reports, while a real registry takes it through a slow line."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hone_api.contract.report import TOKEN_ENV, URL_ENV, ProgressReport
from hone_dev.cluster import imageregistry
from hone_trainer.artifacts.delivery import deliver
from hone_trainer.reporting import transfer
from hone_trainer.reporting.transfer import TransferProgress

from .conftest import Model

pytestmark = pytest.mark.trainer
SPEED = 4 * 2**20
"""Bytes a second of the slow line."""


@contextmanager
def slow_line(host: str, port: int) -> Iterator[int]:
    """A port that leads to another one, slowly in that direction."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, host, port), daemon=True).start()
        yield server.getsockname()[1]


def _accept(server: socket.socket, host: str, port: int) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return  # closed
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        far = socket.create_connection((host, port))
        threading.Thread(target=_carry, args=(client, far, SPEED), daemon=True).start()
        threading.Thread(target=_carry, args=(far, client, None), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket, speed: int | None) -> None:
    try:
        while piece := source.recv(2**15):
            target.sendall(piece)
            if speed:
                time.sleep(len(piece) / speed)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other end has gone


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[ProgressReport]]:
    """What arrives where the operator would be."""
    arrived: list[ProgressReport] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Authorization"] == "Bearer of-the-pod"
            text = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.append(ProgressReport.model_validate_json(text))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    (tmp_path / "token").write_text("of-the-pod")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(URL_ENV, f"http://127.0.0.1:{server.server_port}/status")
        monkeypatch.setenv(TOKEN_ENV, str(tmp_path / "token"))
        yield arrived
        server.shutdown()


def test_bytes_and_rate_are_reported_while_they_are_sent(
    reports: list[ProgressReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "REPORT_SECONDS", 0.6)
    monkeypatch.setattr(transfer, "_SAMPLE_SECONDS", 0.1)
    model = Model(tmp_path / "model", weights=4 * SPEED)
    total = sum(len(text) for path, text in model.files().items() if path != "manifest.json")
    with imageregistry.serve(tmp_path / "registry") as registry:
        host, _, port = registry.host.partition(":")
        with slow_line(host, int(port)) as near:
            plan = model.plan(f"oci://127.0.0.1:{near}/team/tutor")
            deliver.run(plan)
            steps = [report.hone.step for report in reports if report.hone]
            assert {report.hone.stage for report in reports if report.hone} == {"Delivering"}
            assert {report.hone.total_steps for report in reports if report.hone} == {total}
            assert steps == sorted(steps)
            assert steps[0] == 0
            assert steps[-1] == total
            assert 4 <= len(steps) <= 12, "seldom, whatever the number of pieces"
            rates = [float(r.hone.metrics["bytes_per_second"]) for r in reports if r.hone and r.hone.metrics]
            assert SPEED / 3 < rates[len(rates) // 2] < SPEED * 3
            etas = [r.trainer_status.estimated_remaining_seconds for r in reports]
            assert any(eta and eta > 0 for eta in etas)
            assert etas[-1] == 0
            reports.clear()
            assert deliver.run(plan).uploaded_bytes == 0
    assert reports[-1].hone is not None
    assert reports[-1].hone.step == total, "what is there counts"


def test_the_rate_is_that_of_late() -> None:
    now = [0.0]
    progress = TransferProgress("copy", 10_000, clock=lambda: now[0])
    assert progress.rate is None
    assert json.loads(json.dumps(progress.progress().metrics)) == {}
    for second, count in [(1, 5000), *((second, 10) for second in range(2, 50))]:
        now[0] = float(second)
        progress.add_bytes(count)
    assert progress.rate == 10.0, "what was found at the start is forgotten"
    reported = progress.progress()
    assert (reported.step, reported.total_steps, reported.eta_seconds) == (5480, 10_000, 452)
    now[0] = 60.0
    progress.add_bytes(9000)
    assert (progress.progress().step, progress.progress().eta_seconds) == (10_000, 0), "padding is not the files'"


def test_a_stalled_copy_has_no_end_in_sight() -> None:
    now = [0.0]
    progress = TransferProgress("copy", 10, clock=lambda: now[0])
    now[0] = 5.0
    progress.add_bytes(0)
    assert progress.rate == 0.0
    assert progress.progress().eta_seconds is None
