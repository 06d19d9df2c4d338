"""The guides to preparing data do what they say: their files are written, their commands run, their output compared."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from hone_api.words.failures import FAILURES
from hone_trainer.__main__ import main

pytestmark = pytest.mark.trainer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs/guides/own-data.md", *sorted((ROOT / "docs/guides/data").glob("*.md"))]
FENCE = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```', re.S | re.M)
OURS = ["-m", "hone_trainer", "validate"]


class Command(NamedTuple):
    words: list[str]
    shown: list[str]


def commands(text: str) -> list[Command]:
    """The commands of a console block, each with the lines shown after it."""
    found: list[Command] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Command(shlex.split(line[2:]), []))
        elif line.strip():
            found[-1].shown.append(line)
    return found


def missing(shown: list[str], said: list[str]) -> str | None:
    """The first line that was not said in this order; `…` stands for anything."""
    rest = iter(said)
    for line in shown:
        pattern = re.compile(".*".join(re.escape(part) for part in line.strip().split("…")))
        if not any(pattern.fullmatch(other.strip()) for other in rest):
            return line
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_say_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(tmp_path / "termination-log"))
    shutil.copy(ROOT / "examples/02-two-nodes/kubernetes-api.jsonl", "rows.jsonl")
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        if block["title"]:
            Path(block["title"]).write_text(block["text"], encoding="utf-8")
        elif block["language"] == "console":
            for command in commands(block["text"]):
                if command.words[1:4] == OURS:
                    code = main(command.words[3:])
                    said = capsys.readouterr()
                    lines = [*said.out.splitlines(), *said.err.splitlines()]
                    assert missing(command.shown, lines) is None, "\n".join(lines)
                    assert bool(code) == any(line.partition(":")[0] in FAILURES for line in command.shown)
