"""Commands of use: the same in model card and report, as far as they hold for the form, and they work."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from markdown_it import MarkdownIt

from hone_api.delivery import ArtifactForm
from hone_api.plan import TrainingPlan
from hone_cli.__main__ import application
from hone_trainer.artifacts import model_card, run_summary, usage

pytestmark = pytest.mark.trainer
EFFORT = {"seconds": 1.0, "gpus": 0, "peak_memory_bytes": 1}


def report(form: ArtifactForm = "Adapter", effort: Any = EFFORT, **plan: Any) -> dict[str, Any]:
    body = {"method": "SFT", "modelUri": "hf://owner/base@main", "output": {"modelName": "tutor"}, "adapter": {}}
    return {"form": form, "effort": effort, "resolved": {}, "plan": body | plan}


def commands(**changes: Any) -> list[str]:
    """The beginning of each command."""
    return [step.command.split("\n")[0] for step in usage.steps(report(**changes)) if step.command]


CLUSTER = ["hone chat tutor --form Merged", "hone download tutor out --form Merged"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            [
                "hone chat tutor --form Adapter",
                "hone download tutor out --form Adapter",
                "python - <<'END'",
                "vllm serve owner/base --enable-lora --lora-modules tutor=.",
            ],
        ),
        ({"form": "Merged"}, [*CLUSTER, "python - <<'END'", "vllm serve . --served-model-name tutor"]),
        (
            {"form": "GGUF"},
            [
                "hone download tutor out --form GGUF",
                "llama-cli -m tutor.gguf -p 'Your question'",
                "echo 'FROM ./tutor.gguf' > Modelfile && ollama create tutor -f Modelfile && ollama run tutor",
            ],
        ),
        ({"method": "Reward"}, ["hone download tutor out --form Adapter"]),
        ({"method": "DAPT", "form": "Full"}, ["hone download tutor out --form Full", "python - <<'END'", "vllm serve"]),
        ({"modelAdapter": {"path": "x"}}, []),
        (
            {"modelUri": "pvc://models/base"},
            [
                "hone chat tutor --form Adapter",
                "hone download tutor out --form Adapter",
                "python -m hone_trainer ask . 'Your question'",
            ],
        ),
        ({"effort": None, "form": "Full"}, ["python - <<'END'", "vllm serve . --served-model-name tutor"]),
    ],
)
def test_commands_suit_the_form(changes: dict[str, Any], expected: list[str]) -> None:
    shown = commands(**changes)
    assert len(shown) == len(expected)
    assert all(command.startswith(start) for command, start in zip(shown, expected, strict=True))


@pytest.mark.parametrize("form", ["Adapter", "Merged", "Full", "GGUF"])
def test_hone_has_these_commands_and_options(form: ArtifactForm) -> None:
    group: Any = typer.main.get_command(application())
    of_hone = [shlex.split(command)[1:] for command in commands(form=form) if command.startswith("hone ")]
    for name, *arguments in of_hone:
        with group.commands[name].make_context(name, arguments) as context:
            assert context.params["model"] == "tutor"
            assert context.params["form"] == form
    assert of_hone[-1][0] == "download"


EVIL = "x\"'\n```\n<script>alert(1)</script>\n# Heading"


@pytest.mark.attack("HTML and cards")
@pytest.mark.parametrize("form", ["Adapter", "Merged", "GGUF"])
def test_the_card_has_the_commands_of_the_report_as_code(form: ArtifactForm) -> None:
    body = {
        "run": "run",
        "modelPath": "/model",
        "modelUri": "hf://owner/base@main",
        "datasets": [{"name": "rows", "path": "/rows.jsonl", "digest": "sha256:" + "0" * 64}],
        "output": {"modelName": "tutor"},
        "workPath": "/work",
        "outputPath": "/out",
    }
    of_report = report(form, output={"modelName": EVIL})
    use = usage.steps(of_report)
    plan = TrainingPlan.model_validate(body)
    card = model_card.render(plan, form, numbers=[], samples=[], resolved={}, steps=1, use=use)
    section = card.split("\n## Use it\n")[1].split("\n## Data\n")[0]
    tokens = MarkdownIt("commonmark").parse(section)
    assert {token.type for token in tokens} == {"paragraph_open", "inline", "paragraph_close", "fence"}
    assert [token.content for token in tokens if token.type == "fence"] == [f"{s.command}\n" for s in use if s.command]
    on_page = run_summary.next_steps(of_report, run_summary.Headline("Better than the base.", "good", []))
    assert on_page[: len(use)] == use


def test_the_card_of_a_run_has_a_snippet_that_answers(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(adapter={"type": "None"}, training={"learningRate": "2e-3", "maxSteps": 2}, held_out=False)
    runs.finish(plan)
    folder = Path(plan.output_path) / "full"
    card = (folder / "README.md").read_text()
    assert "hone chat tiny --form Full" in card
    for step in usage.steps(json.loads((folder / "report.json").read_text())):
        assert step.text in card
        assert step.command in card
    [snippet] = re.findall(r"^python - <<'END'\n(.*?)\nEND$", card, re.M | re.S)
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(snippet, {})
    assert capsys.readouterr().out, "its answer"
