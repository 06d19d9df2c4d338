"""Reporting: what is sent, and that nothing of it can hurt a run. The server is a real one on loopback."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract.report import ProgressReport
from hone_api.words import phases
from hone_api.words.progress_numbers import OF_STAGE
from hone_trainer.reporting import live
from hone_trainer.reporting.live import Operator, Progress, Reporters
from hone_trainer.reporting.prometheus import PrometheusReporter

pytestmark = pytest.mark.pure


class Server(ThreadingHTTPServer):
    """Keeps what it was sent; answers with `status` after `delay` seconds."""

    status, delay = 200, 0.0
    busy = 0
    """How many further requests are answered with 429."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[Any] = []
        self.tokens: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.tokens.append(self.headers.get("Authorization"))
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        time.sleep(self.server.delay)
        busy, self.server.busy = self.server.busy > 0, self.server.busy - 1
        self.send_response(429 if busy else self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("first\n")
    return file


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/progress"


def test_the_last_progress_always_arrives_and_the_token_is_read_again(server: Server, token: Path) -> None:
    operator = Operator(url(server), token, None, interval=0.01)
    operator.report(Progress(stage="Training", step=1, total_steps=4, loss=2.5))
    deadline = time.monotonic() + 600
    while not server.bodies and time.monotonic() < deadline:
        time.sleep(0.01)
    token.write_text("rotated\n")
    operator.report(Progress(stage="Exporting", step=4, total_steps=4, loss=float("nan"), eta_seconds=0))
    operator.close()
    first, last = (ProgressReport.model_validate(body) for body in (server.bodies[0], server.bodies[-1]))
    assert first.hone is not None
    assert (first.hone.stage, first.hone.step, first.hone.loss) == ("Training", 1, "2.5")
    assert first.trainer_status.progress_percentage == 25
    assert last.hone is not None
    assert (last.hone.stage, last.hone.loss, last.trainer_status.progress_percentage) == ("Exporting", "nan", 100)
    assert (server.tokens[0], server.tokens[-1]) == ("Bearer first", "Bearer rotated")


def test_reports_do_not_go_through_a_proxy(server: Server, token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:  # bound, and refuses connections
        nobody.bind(("127.0.0.1", 0))
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        operator = Operator(url(server), token, None, interval=0.01)
        operator.report(Progress(stage="Training", step=1))
        operator.close()
    assert [body["hone"]["step"] for body in server.bodies] == [1]


def test_many_reports_become_few(server: Server, token: Path) -> None:
    operator = Operator(url(server), token, None, interval=60)
    for step in range(1, 1001):
        operator.report(Progress(stage="Training", step=step))
    operator.close()
    assert len(server.bodies) <= 3
    assert server.bodies[-1]["hone"]["step"] == 1000


def test_stages_that_change_quickly_stay_below_two_reports_a_second(server: Server, token: Path) -> None:
    operator = Operator(url(server), token, None)
    begin = time.monotonic()
    for step in range(200):
        operator.report(Progress(stage=("Training", "Evaluating")[step % 2], step=step))
        time.sleep(0.01)
    operator.close()
    seconds = time.monotonic() - begin
    assert len(server.bodies) <= 2 + seconds / live.SHORTEST_INTERVAL
    assert server.bodies[-1]["hone"]["step"] == 199


@pytest.mark.parametrize("closing", [False, True])
def test_a_report_that_was_refused_for_now_is_sent_again(server: Server, token: Path, closing: bool) -> None:
    server.busy = 1
    operator = Operator(url(server), token, None, interval=0.01)
    operator.report(Progress(stage="Training", step=7))
    if not closing:
        deadline = time.monotonic() + 600
        while len(server.bodies) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    operator.close()
    assert [body["hone"]["step"] for body in server.bodies] == [7, 7]


def test_a_report_that_was_refused_for_good_is_not(server: Server, token: Path) -> None:
    server.status = 403
    operator = Operator(url(server), token, None, interval=0.01)
    operator.report(Progress(stage="Training", step=7))
    time.sleep(0.2)
    operator.close()
    assert len(server.bodies) == 1


def test_a_slow_or_refusing_or_absent_server_never_blocks(server: Server, token: Path) -> None:
    server.status, server.delay = 403, 0.5
    absent = "http://127.0.0.1:9/progress"
    for address, file in ((url(server), token), (absent, token), (url(server), token.with_name("no-token"))):
        operator = Operator(address, file, None, interval=0.01)
        before = time.thread_time()
        for step in range(100):
            operator.report(Progress(step=step))
        assert time.thread_time() - before < 0.5  # CPU time of this thread: a busy machine does not matter
        operator.close()


def test_reporters_change_only_the_fields_of_an_update() -> None:
    reporters = Reporters()
    reporters.update(stage="Training", step=3)
    reporters.update(loss=1.5)
    assert reporters.progress == Progress(stage="Training", step=3, loss=1.5)


def test_rows_are_counted_within_their_stage(capsys: pytest.CaptureFixture[str]) -> None:
    reporters = Reporters(live.LogLines(interval=3600))
    reporters.begin_rows("EvaluatingBase", 96)
    reporters.add_rows(40, begun=96)
    reporters.add_rows(56)
    reporters.update(stage="Training", step=1, total_steps=8)
    first, last, training = capsys.readouterr().err.splitlines()
    assert (first, training) == ("Evaluating base 0/96 rows", "Training 1/8")
    assert last.startswith("Evaluating base 96/96 rows rows/s ")
    assert live.to_report(Progress(stage="Encoding", rows=96, total_rows=96)).trainer_status.progress_percentage is None


def test_a_value_never_outlives_its_stage() -> None:
    reporters = Reporters()
    values: dict[str, Any] = dict.fromkeys((*OF_STAGE, "eta_seconds"), 7)
    for stage in phases.OF_STAGE:
        reporters.update(stage=stage, loss=2.5, **values)
        reporters.update(stage=stage, step=3)
        assert {**vars(reporters.progress), **values} == vars(reporters.progress)
        reporters.update(stage=f"not {stage}")
        assert {**vars(reporters.progress), **dict.fromkeys(values)} == vars(reporters.progress)
        assert reporters.progress.loss == 2.5


def test_rows_have_a_rate_and_an_end_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The total grows with rows that are measured twice, e.g. by another model."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    reporters = Reporters()
    reporters.begin_rows("EvaluatingBase", 20)
    assert (reporters.progress.rows, reporters.progress.total_rows, reporters.progress.eta_seconds) == (0, 20, None)
    now += 10
    reporters.add_rows(5, begun=20)
    assert (reporters.progress.rows_per_second, reporters.progress.eta_seconds) == (0.5, 30)
    now += 10
    reporters.add_rows(15)
    assert (reporters.progress.rows, reporters.progress.eta_seconds) == (20, 0)
    now += 10
    reporters.add_rows(10, begun=10)
    assert (reporters.progress.rows, reporters.progress.total_rows, reporters.progress.eta_seconds) == (30, 30, 0)


def test_long_work_without_a_number_is_reported_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, sent = 100.0, list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    reporters = Reporters(Timed(lambda: sent.append(now)))
    for _ in range(100):  # tokens of an answer
        reporters.go_on()
        now += 0.25
    assert len(sent) == 25 / live.SIGN_INTERVAL - 1
    assert max(b - a for a, b in pairwise(sent)) <= live.SIGN_INTERVAL + 0.25


class Timed:
    """A Reporter that notes each report."""

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note

    def report(self, progress: Progress) -> None:
        self._note()

    def log(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_short_evaluation_among_steps_has_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    reporters = Reporters(live.LogLines(interval=3600))
    reporters.update(stage="Training", step=1, total_steps=3, loss=2.0)
    for step in (2, 3):
        reporters.update(step=step, loss=2.0 - step / 4)
        reporters.begin_rows("Evaluating", 24)
        reporters.update(stage="Training", eval_step=step, eval_loss=3.0)
    assert capsys.readouterr().err.splitlines() == [
        "Training 1/3 loss 2.0000",
        "Training 3/3 loss 1.2500 eval 3.0000",
    ]


def test_lines_are_few_but_stages_and_the_end_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = live.LogLines(interval=3600)
    for step in range(11):
        lines.report(Progress(stage="Training", step=step, total_steps=10, loss=1.0))
    lines.report(Progress(stage="Exporting", step=10, total_steps=10))
    assert capsys.readouterr().err.splitlines() == [
        "Training 0/10 loss 1.0000",
        "Training 10/10 loss 1.0000",
        "Exporting 10/10",
    ]


def test_metrics_are_served_and_unknown_numbers_have_no_series() -> None:
    metrics = PrometheusReporter("my-job", 0, "127.0.0.1")
    try:
        metrics.report(Progress(stage="Training", step=3, total_steps=10, loss=1.25))
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        metrics.close()
    assert 'hone_trainer_loss{finetunejob="my-job"} 1.25' in text
    assert 'hone_trainer_steps{finetunejob="my-job"} 3.0' in text
    assert 'hone_trainer_steps_target{finetunejob="my-job"} 10.0' in text
    assert "hone_trainer_eval_loss{" not in text


def test_a_number_that_is_no_longer_known_has_no_series() -> None:
    metrics = PrometheusReporter("my-job", 0, "127.0.0.1")
    try:
        metrics.report(Progress(stage="Encoding", tokens_per_second=87_691.0))
        metrics.report(Progress(stage="EvaluatingBase"))
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as answer:
            assert "hone_trainer_tokens_per_second{" not in answer.read().decode()
    finally:
        metrics.close()
