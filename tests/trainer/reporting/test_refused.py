"""A pod says once in its log why the operator does not get its reports, and what to do."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.cluster.progressing import Reporting, reporting

from hone_api.contract.report import CA_ENV, TOKEN_ENV, URL_ENV
from hone_operator.progress.tls import renew
from hone_trainer.reporting.live import Operator, Progress

pytestmark = pytest.mark.trainer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Reporting]:
    with reporting(tmp_path) as made:
        yield made


def said(environment: dict[str, str], reports: int) -> list[str]:
    """What the log has after so many reports."""
    lines: list[str] = []
    ca = environment.get(CA_ENV)
    operator = Operator(environment[URL_ENV], Path(environment[TOKEN_ENV]), Path(ca) if ca else None, log=lines.append)
    for step in range(reports):
        operator._post(Progress(stage="Training", step=step, start_step=0, total_steps=10))
    operator.close()
    return lines


def only(lines: list[str]) -> str:
    assert len(lines) == 1, lines
    assert "The run continues" in lines[0]
    return lines[0]


def test_nothing_while_reports_arrive(server: Reporting) -> None:
    assert said(server.environment(), 3) == []
    assert server.latest is not None


def test_an_authority_made_again(server: Reporting) -> None:
    environment = server.environment()
    other = server.folder / "other.crt"
    other.write_text(renew(None, ["localhost"], datetime.now(UTC)).ca_pem)
    line = only(said({**environment, CA_ENV: str(other)}, 8))
    assert "certificate is not trusted" in line
    assert "next attempt" in line
    assert server.reports == []


def test_a_token_that_nobody_knows(server: Reporting) -> None:
    environment = server.environment()
    Path(environment[TOKEN_ENV]).write_text("stranger")
    line = only(said(environment, 8))
    assert "answered 401 Unauthorized (a token of the pod" in line
    assert "audience" in line


def test_a_job_of_another_namespace(server: Reporting) -> None:
    environment = server.environment()
    line = only(said({**environment, URL_ENV: environment[URL_ENV].replace("/ml/", "/other/")}, 8))
    assert "answered 403 Forbidden (a pod may report only for jobs of its namespace)" in line


def test_a_name_that_does_not_resolve(server: Reporting) -> None:
    environment = server.environment()
    url = environment[URL_ENV].replace("localhost", "hone-progress.invalid")
    line = only(said({**environment, URL_ENV: url}, 8))
    assert "name cannot be resolved" in line
    assert "clusterDomain" in line


@pytest.mark.parametrize(("reports", "lines"), [(4, 0), (12, 1)])
def test_an_operator_that_restarts_is_no_news(server: Reporting, reports: int, lines: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = server.environment()
    found = said({**environment, URL_ENV: environment[URL_ENV].replace(str(server.port), str(port))}, reports)
    assert len(found) == lines
    assert all("cannot be reached" in line for line in found)


@pytest.mark.attack("numbers")
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"\xff", b'{"message": 1}', b"[" * 9000, json.dumps({"message": "a\nb\x1b" * 900}).encode()],
    ids=["empty", "list", "no-text", "number", "deep", "long"],
)
def test_any_answer_is_one_short_line(tmp_path: Path, body: bytes) -> None:
    """Whoever answers in the operator's place."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        token = tmp_path / "token"
        token.write_text("t")
        lines: list[str] = []
        operator = Operator(f"http://127.0.0.1:{listener.getsockname()[1]}/", token, None, log=lines.append)
        operator.report(Progress(stage="Training"))
        peer, _ = listener.accept()
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        peer.close()
        operator.close()
    line = only(lines)
    assert len(line) < 1000
    assert line.isprintable()
