"""Real runs in a network that has loopback alone, where every attempt to leave this machine is written down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.runs.forks import RUN, Forks, without_hub

from hone_api.contract.termination import TerminationMessage, parse_outcome

ALONE = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
"""Runs a command in a network that has loopback alone."""
_WATCH = """
import json, os, sys

def watch(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        told = [str(a) for a in args if isinstance(a, (str, tuple, bytes))]
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(json.dumps([event, told]) + "\\n")

sys.addaudithook(watch)
"""
_OWN = ("127.0.0.1", "localhost", "::1", "('/", "b'/", "/")
"""Beginnings of addresses on this machine: loopback, and files that are sockets."""


def possible() -> bool:
    """Whether this machine allows network namespaces."""
    tools = shutil.which("unshare") and shutil.which("ip")
    return bool(tools) and subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0


@dataclass
class Alone:
    """Runs Python without a network."""

    folder: Path
    _runs: Forks | None = None

    def __post_init__(self) -> None:
        (self.folder / "site").mkdir(parents=True)
        (self.folder / "site" / "sitecustomize.py").write_text(_WATCH)

    def python(self, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """What ended, and its attempts to leave this machine."""
        attempts = self._no_attempts()
        command, environment = [*ALONE, sys.executable, *arguments], self._environment()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done, _attempts(attempts)

    def trainer(self, folder: Path, *arguments: str) -> list[str]:
        """Run `python -m hone_trainer ARGUMENTS` in a fork of a process that has imported what a run imports.

        Args:
            folder: for the termination message `log` and what is printed, `output`.

        Returns:
            The attempts to leave this machine.
        """
        runs = self._runs = self._runs or self._start()
        attempts = self._no_attempts()
        runs(arguments, {"HONE_TERMINATION_LOG": str(folder / "log")}, folder / "output")
        return _attempts(attempts)

    def __call__(self, body: dict[str, Any], folder: Path) -> tuple[TerminationMessage, list[str]]:
        """The outcome of a plan, given as its JSON, and the attempts to leave this machine."""
        plan, log = folder / "plan.json", folder / "log"
        plan.write_text(json.dumps(body))
        attempts = self.trainer(folder, "run", str(plan))
        outcome = parse_outcome(log.read_text()) if log.is_file() else None
        assert outcome is not None, (folder / "output").read_text()
        return outcome, attempts

    def close(self) -> None:
        """Nothing runs any more."""
        if self._runs:
            self._runs.close()

    def _start(self) -> Forks:
        attempts = self._no_attempts()
        runs = Forks(*RUN, environment=self._environment(), within=ALONE)
        assert _attempts(attempts) == [], "to import a library needs no network"
        return runs

    def _no_attempts(self) -> Path:
        """The file that attempts are written to, empty."""
        attempts = self.folder / "attempts"
        attempts.write_text("")
        return attempts

    def _environment(self) -> dict[str, str]:
        environment = without_hub()
        paths = os.pathsep.join([str(self.folder / "site"), *filter(None, [environment.get("PYTHONPATH")])])
        return environment | {"PYTHONPATH": paths, "ATTEMPTS": str(self.folder / "attempts")}


def _attempts(file: Path) -> list[str]:
    """Those that name another machine."""
    return [line for line in file.read_text().splitlines() if _leaves(*json.loads(line))]


def _leaves(event: str, told: list[str]) -> bool:
    """Whether the attempt names another machine."""
    return not all(word.strip("('\"").startswith(_OWN) for word in told[:1])
