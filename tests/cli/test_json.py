"""Each command that prints an answer prints it as JSON, too. Those that ask a cluster are in tests/operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hone_cli.__main__ import application
from hone_dev.generate import cli_reference

pytestmark = pytest.mark.pure
WITHOUT = {
    **dict.fromkeys(("chat", "ui", "mcp", "dataset review"), "are conversations"),
    "logs": "prints the log as it is",
    **dict.fromkeys(("init", "report", "bundle", "migrate openai"), "is the file that their `-o` names"),
}
"""Commands that have none, and the reason, in the words of the reference."""


def commands(group: Any, words: str = "") -> dict[str, Any]:
    """All commands that people type, by their words."""
    found = {}
    for name, command in group.commands.items():
        if not command.hidden:
            found |= commands(command, f"{name} ") if hasattr(command, "commands") else {words + name: command}
    return found


def choices(param: Any) -> tuple[Any, ...]:
    return get_args(param.type_descriptor.annotation)


def test_every_command_takes_o_json_or_says_why_not() -> None:
    every = commands(get_command(application()))
    assert len(every) > 30
    without = {
        name
        for name, command in every.items()
        if not any("-o" in param.opts and "json" in choices(param) for param in command.params)
    }
    assert without == {*WITHOUT}
    reference = " ".join(cli_reference.INTRODUCTION.split())
    for name, reason in WITHOUT.items():
        assert f"`{name}`" in reference
        assert reason in reference


@pytest.mark.parametrize(
    "words",
    [
        "check rows.jsonl",
        "convert config.yaml",
        "recipes llama --gpu L4",
        "plan job.yaml --offline",
        "explain DoesNotFit",
        "mirror job.yaml --registry registry.example.org --hub /srv/hub",
    ],
)
def test_the_answer_of_a_command_without_a_cluster_is_json(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ({"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(20))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "config.yaml").write_text("{base_model: a/b, datasets: [{path: a/rows, type: alpaca}]}")
    spec = {"model": {"uri": "hf://Qwen/Qwen2.5-0.5B-Instruct"}, "datasets": [{"name": "rows"}]}
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "job"}}
    (tmp_path / "job.yaml").write_text(json.dumps({**body, "spec": {**spec, "output": {"modelName": "bot"}}}))
    done = CliRunner().invoke(application(), [*words.split(), "-o", "json"])
    assert done.exit_code in (0, 6), done.output
    assert json.loads(done.stdout or capfd.readouterr().out)
