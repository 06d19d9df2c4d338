"""Each command of a runbook is one that its program takes: nobody finds a wrong option at night."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from hone_dev.cluster import binaries
from hone_dev.tools import paths, tools

pytestmark = pytest.mark.apiserver  # for its kubectl
PAGES = sorted((paths.SOURCE / "docs" / "guides" / "runbooks").glob("*.md"))
PROGRAMS = {"kubectl": lambda: binaries.kubernetes() / "kubectl", "helm": tools.helm}
"""Those of `hone` are checked with the commands of all pages, in test_named_fields."""
ELSEWHERE = {"hone", "curl"}


def commands(page: str) -> list[list[str]]:
    """The words of each command in the blocks, up to a pipe; a command may have several lines."""
    found = []
    for block in re.findall(r"^```(?:console)?\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        begun = ""
        for line in block.replace("\\\n", " ").splitlines():
            begun = f"{begun}\n{line}" if begun else line.removeprefix("$ ")
            try:
                words = shlex.split(begun, comments=True)
            except ValueError:  # a quotation that the next line goes on with
                continue
            begun = ""
            ends = [index for index, word in enumerate(words) if word in ("|", "&")]
            found.append(words[: ends[0]] if ends else words)
        assert not begun
    return [words for words in found if words]


def refusal(words: list[str]) -> str:
    """What the program says of its words and options; it does nothing, since it is asked for help."""
    program, *rest = words
    end = rest.index("--") if "--" in rest else len(rest)
    done = subprocess.run([PROGRAMS[program](), *rest[:end], "--help"], capture_output=True, text=True)
    # Where a group of commands does not know the next word, it prints its own help.
    is_group = re.search(r"^ +(?:kubectl \[flags\]|.*SUBCOMMAND|helm .*\[command\])", done.stdout, re.MULTILINE)
    return done.stderr if done.returncode else "no such command" if is_group else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_program_takes_each_command(page: Path) -> None:
    shown = commands(page.read_text())
    assert shown or page.stem == "index"
    assert {words[0] for words in shown} <= {*PROGRAMS, *ELSEWHERE}
    refused = {shlex.join(words): refusal(words) for words in shown if words[0] in PROGRAMS}
    assert {command: said for command, said in refused.items() if said} == {}


@pytest.mark.parametrize(
    "command", ["kubectl get pods --frob", "kubectl rollout frob", "kubectl frob x", "helm -n a upgrade b c --frob"]
)
def test_a_command_that_does_not_exist_is_seen(command: str) -> None:
    assert refusal(command.split())
