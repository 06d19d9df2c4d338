"""What `hone` says of itself: help, release, and the page of the reference that is made from both."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hone_api import RELEASE
from hone_dev import cli_reference

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]
COMMANDS = re.findall(r"^## hone (.+)$", cli_reference.page(), re.M)


def hone(*words: str) -> str:
    """What the program prints on a terminal of 80 columns."""
    program = [sys.executable, "-m", "hone_cli", *words]
    variables = {"COLUMNS": "80", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(program, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_prints_its_release() -> None:
    assert hone("--version") == f"hone {RELEASE}\n"


def test_the_release_is_that_of_the_package() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == RELEASE


def test_the_reference_is_what_the_program_says() -> None:
    assert cli_reference.PAGE.read_text() == cli_reference.page(), "run python -m hone_dev.cli_reference"


def test_help_fits_a_terminal_and_names_every_command() -> None:
    printed = hone("--help")
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.startswith("Usage: hone ")
    assert "..." not in printed.split("\nCommands:\n")[1], "the first sentence of a command is cut"
    assert {command.split()[0] for command in COMMANDS} <= set(re.findall(r"^  (\w+)  ", printed, re.M))
    assert "serve-files" not in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_and_option_says_what_it_is(command: str) -> None:
    section = cli_reference.page().split(f"\n## hone {command}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+`) \| (.*) \|$", section, re.M)
    assert len(rows) >= 3
    assert all(re.match(r"[A-Z].{10}", meaning) for _, meaning in rows), rows


def test_the_command_that_the_pages_install_has_what_it_imports() -> None:
    """Without an extra, the package has what all parts share and nothing that `hone` needs."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    commands = [line for page in pages for line in re.findall(r"pip install ['\"]?\.[^\n`]*", page.read_text())]
    assert len(commands) >= 2
    assert all(command.startswith("pip install '.[cli]'") for command in commands)
