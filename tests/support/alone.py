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

from hone_api.report import TerminationMessage, parse_outcome

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

    def __post_init__(self) -> None:
        (self.folder / "site").mkdir(parents=True)
        (self.folder / "site" / "sitecustomize.py").write_text(_WATCH)

    def python(self, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """What ended, and its attempts to leave this machine."""
        attempts = self.folder / "attempts"
        attempts.write_text("")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        paths = os.pathsep.join([str(self.folder / "site"), *filter(None, [environment.get("PYTHONPATH")])])
        log = str(self.folder / "log")
        environment |= {"PYTHONPATH": paths, "ATTEMPTS": str(attempts), "HONE_TERMINATION_LOG": log}
        command = [*ALONE, sys.executable, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done, [line for line in attempts.read_text().splitlines() if _leaves(*json.loads(line))]

    def __call__(self, body: dict[str, Any]) -> tuple[TerminationMessage, list[str]]:
        """The outcome of a plan, given as its JSON, and the attempts to leave this machine."""
        plan = self.folder / "plan.json"
        plan.write_text(json.dumps(body))
        done, attempts = self.python("-m", "hone_trainer", "run", str(plan))
        log = self.folder / "log"
        outcome = parse_outcome(log.read_text()) if log.is_file() else None
        assert outcome is not None, done.stderr
        return outcome, attempts


def _leaves(event: str, told: list[str]) -> bool:
    """Whether the attempt names another machine."""
    return not all(word.strip("('\"").startswith(_OWN) for word in told[:1])
