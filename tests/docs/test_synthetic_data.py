"""The guide on synthetic data says what the program does, and every `hone` in the documentation is one it takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer.main

from hone_api.dataset.review import most_defective
from hone_api.dataset.synthesis import Template
from hone_cli.__main__ import application
from hone_cli.review.terminal import Terminal

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "synthetic-data.md").read_text()
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]


def commands():
    """Every `$ hone …` of a console block."""
    for page in sorted(PAGES):
        for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.S | re.M):
            yield from re.findall(r"^\$ hone (.*)$", block, re.M)


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_hone_takes_what_the_documentation_types(line):
    command, words = typer.main.get_command(application()), shlex.split(line, comments=True)
    context = click.Context(command)
    while isinstance(command, click.Group):
        _, found, words = command.resolve_command(context, words)
        command, context = found, click.Context(found, parent=context)
    command.make_context("hone", words)  # parses, and runs nothing


def test_the_keys_are_those_of_the_terminal():
    (paragraph,) = (text for text in GUIDE.split("\n\n") if text.startswith("It shows one row at a time"))
    named = set(re.findall(r"`([a-z])`\s", paragraph))
    assert named == {binding.key for binding in Terminal.BINDINGS if binding.show}


def test_every_template_is_in_the_guide():
    assert set(re.findall(r"^\| `(\w+)` \| (?:Questions|Documents)", GUIDE, re.M)) == {t.value for t in Template}


def test_what_a_sample_means_is_what_is_computed():
    bad, size, confidence, most, rows = map(
        int,
        re.search(
            r"(\d+) of (\d+) sampled rows are bad: with (\d+)% confidence at most (\d+) of all (\d+)", GUIDE
        ).groups(),
    )
    assert most == most_defective(rows, size, bad, confidence / 100)
    told = re.findall(r"(?:sample of|one of) (\d+) (?:shows )?at most (\d) %", GUIDE)
    assert len(told) == 2
    for size, percent in told:
        bound = most_defective(1_000_000, int(size), 0, 0.95)
        assert int(percent) - 0.1 < bound / 10_000 <= int(percent)
