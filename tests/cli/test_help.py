"""What `hone` says of itself: help, release, and the page of the reference that is made from both."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hone_api import RELEASE
from hone_cli.__main__ import application, listing
from hone_dev.generate import cli_reference

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
    assert cli_reference.PAGE.read_text() == cli_reference.page(), "run python -m hone_dev.generate.cli_reference"


def test_help_fits_a_terminal_and_names_every_command() -> None:
    printed = hone("--help")
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.startswith("Usage: hone ")
    assert "..." not in printed.split("\nCommands:\n")[1], "the first sentence of a command is cut"
    assert {command.split()[0] for command in COMMANDS} <= set(re.findall(r"^  (\w+)  ", printed, re.M))
    assert "serve-files" not in printed


@pytest.mark.parametrize("columns", [40, 80])
def test_help_of_every_command_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    app = application()
    program = get_command(app)
    for words in ([], *(command.split() for command in COMMANDS)):
        help_ = inspect.cleandoc(_named(program, words).help or "")
        lines = "\n".join(re.findall(r"\x08\n(.+?)(?:\n\n|$)", help_, re.S)).splitlines()
        examples = {line.strip() for line in lines}
        done = CliRunner().invoke(app, [*words, "--help"], prog_name="hone")
        most = max(columns, 46)  # the longest option, and the ten columns that click leaves for its meaning
        long = [line for line in done.output.splitlines() if len(line) > most and line.strip() not in examples]
        assert (done.exit_code, long) == (0, []), words


def test_a_shell_completes_every_name_of_an_object() -> None:
    """All arguments but files, folders and names that are new."""
    program = get_command(application())
    new = {"upload name", "recipes model", "migrate openai job"}
    for words in (command.split() for command in COMMANDS):
        for parameter in _named(program, words).params:
            name = parameter.name
            is_free = f"{' '.join(words)} {name}" in new or name in ("file", "files", "folder", "source", "sources")
            if name == "context" or (parameter.param_type_name == "argument" and not is_free):
                assert parameter._custom_shell_complete, (words, name)


def _named(program: Any, words: list[str]) -> Any:
    for word in words:
        program = program.commands[word]
    return program


def test_the_list_of_commands_is_what_the_commands_say() -> None:
    listed, commands = (get_command(app).commands for app in (listing(), application()))
    assert {*listed} == {*commands}
    for name, command in commands.items():
        if not command.hidden:
            assert listed[name].get_short_help_str(300) == command.get_short_help_str(300), name
        assert listed[name].hidden == command.hidden


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("models", "-h")])
def test_help_imports_no_client_of_a_cluster_and_no_server(words: tuple[str, ...]) -> None:
    """Help that takes seconds is not asked for."""
    program = f"import sys; sys.argv = ['hone', *{words!r}]; from hone_cli.__main__ import main\n"
    program += "try: main()\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    variables = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=variables)
    assert done.stdout.startswith("Usage: hone ")
    imported = {name.partition(".")[0] for name in done.stderr.split()}
    assert "typer" in imported
    assert not imported & {"aiohttp", "requests", "chardet", "kubernetes", *([] if "models" in words else ["pydantic"])}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_and_option_says_what_it_is(command: str) -> None:
    section = cli_reference.page().split(f"\n## hone {command}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+`) \| (.*) \|$", section, re.M)
    assert len(rows) >= 2
    assert all(re.match(r"[A-Z].{10}", meaning) for _, meaning in rows), rows


def test_the_command_that_the_pages_install_has_what_it_imports() -> None:
    """Without an extra, the package has what all parts share and nothing that `hone` needs."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    commands = [line for page in pages for line in re.findall(r"pip install ['\"]?\.[^\n`]*", page.read_text())]
    assert len(commands) >= 2
    assert all(re.match(r"pip install '\.\[cli(,data|,harness|,mcp|,sweep)?\]'", command) for command in commands)
