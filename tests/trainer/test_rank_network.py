"""A rank needs no network: real runs where there is none but loopback, and every attempt to use one is written down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hone_api.report import Outcome, TrainingResult, parse_outcome

pytestmark = pytest.mark.trainer
ALONE = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
"""Runs a command in a network that has loopback alone."""
WATCH = """
import json, os, sys

def watch(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        told = [str(a) for a in args if isinstance(a, (str, tuple, bytes))]
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(json.dumps([event, told]) + "\\n")

sys.addaudithook(watch)
"""
OWN = ("127.0.0.1", "localhost", "::1", "('/", "b'/", "/")
"""Beginnings of addresses on this machine: loopback, and files that are sockets."""
HOST = "models.example.org"


def can_unshare() -> bool:
    tools = shutil.which("unshare") and shutil.which("ip")
    return bool(tools) and subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def run_alone(tmp_path: Path) -> Any:
    """Runs a plan, the body of one, without a network; gives (outcome, attempts to leave this machine)."""
    if not can_unshare():
        pytest.skip("this machine does not allow network namespaces")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WATCH)

    def run(body: dict[str, Any]) -> tuple[Outcome, list[str]]:
        file, log, attempts = tmp_path / "plan.json", tmp_path / "log", tmp_path / "attempts"
        file.write_text(json.dumps(body))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        paths = os.pathsep.join([str(tmp_path / "site"), *filter(None, [environment.get("PYTHONPATH")])])
        environment |= {"PYTHONPATH": paths, "ATTEMPTS": str(attempts), "HONE_TERMINATION_LOG": str(log)}
        attempts.touch()
        command = [*ALONE, sys.executable, "-m", "hone_trainer", "run", str(file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        outcome = parse_outcome(log.read_text()) if log.is_file() else None
        assert outcome is not None, done.stderr
        return outcome, [line for line in attempts.read_text().splitlines() if _leaves(*json.loads(line))]

    return run


def _leaves(event: str, told: list[str]) -> bool:
    """Whether the attempt names another machine."""
    return not all(word.strip("('\"").startswith(OWN) for word in told[:1])


def test_the_watch_sees_an_attempt(tmp_path: Path, run_alone: Any) -> None:
    """Else the tests below would assert nothing."""
    program = f"import urllib.request; urllib.request.urlopen('http://{HOST}/', timeout=5)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "ATTEMPTS": str(tmp_path / "attempts")}
    done = subprocess.run([*ALONE, sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    seen = [json.loads(line) for line in (tmp_path / "attempts").read_text().splitlines()]
    assert {event for event, told in seen if _leaves(event, told)} >= {"urllib.Request", "socket.getaddrinfo"}


@pytest.mark.attack("network of a rank")
def test_a_run_with_held_out_rows_and_samples_needs_no_network(run_alone: Any, make_plan: Any) -> None:
    plan = make_plan(training={"maxSteps": 2}, evaluation={"everySteps": 1, "samples": 1})
    outcome, attempts = run_alone(plan.to_json())
    assert outcome.failure is None
    assert isinstance(outcome.result, TrainingResult)
    assert outcome.result.steps == 2
    assert attempts == []


ADDRESSES: dict[str, dict[str, Any]] = {
    "a model by https": {"modelPath": f"https://{HOST}/model"},
}


@pytest.mark.attack("network of a rank")
@pytest.mark.parametrize("what", ADDRESSES)
def test_an_address_in_place_of_a_path_is_never_asked(run_alone: Any, make_plan: Any, what: str) -> None:
    body = make_plan(training={"maxSteps": 1}).to_json()
    for field, value in ADDRESSES[what].items():
        unknown = [{"name": "rows", "path": value, "digest": "sha256:" + "0" * 64}]
        body[field] = unknown if field == "datasets" else value
    outcome, attempts = run_alone(body)
    assert outcome.failure is not None
    assert attempts == []
