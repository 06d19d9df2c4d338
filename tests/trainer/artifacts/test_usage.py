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

from hone_api.blocks.delivery import ArtifactForm
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


CLUSTER = [
    "hone chat tutor --form Merged",
    "hone serve tutor --form Merged | kubectl apply -f -",
    "hone download tutor out --form Merged",
]
CURL = "curl -s localhost:8000/v1/chat/completions"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            [
                "hone chat tutor --form Adapter",
                "hone serve tutor --form Adapter | kubectl apply -f -",
                "hone download tutor out --form Adapter",
                "python - <<'END'",
                "vllm serve owner/base --enable-lora --lora-modules tutor=.",
                CURL,
            ],
        ),
        ({"form": "Merged"}, [*CLUSTER, "python - <<'END'", "vllm serve . --served-model-name tutor", CURL]),
        (
            {"adapter": {"type": "DoRA"}, "output": {"modelName": "bot-8000"}},
            ["hone chat bot-8000 --form Adapter", "hone download bot-8000 out --form Adapter", "python - <<'END'"],
        ),
        (
            {"adapter": {"targets": ["q_proj", "experts.gate_up_proj", "experts.down_proj"]}},
            [
                "hone chat tutor --form Adapter",
                "hone serve tutor --form Adapter | kubectl apply -f -",
                "hone download tutor out --form Adapter",
                "python - <<'END'",
                CURL,
            ],
        ),
        (
            {"form": "GGUF"},
            [
                "hone download tutor out --form GGUF",
                "llama-cli -m tutor.gguf -p 'Your question'",
                "echo 'FROM ./tutor.gguf' > Modelfile && ollama create tutor -f Modelfile && ollama run tutor",
                "llama-server -m tutor.gguf --port 8000",
                CURL,
            ],
        ),
        ({"method": "Reward"}, ["hone download tutor out --form Adapter"]),
        (
            {"method": "DAPT", "form": "Full"},
            [
                "hone serve tutor --form Full | kubectl apply -f -",
                "hone download tutor out --form Full",
                "python - <<'END'",
                "vllm serve",
                "curl -s localhost:8000/v1/completions",
            ],
        ),
        ({"modelAdapter": {"path": "x"}}, []),
        (
            {"modelUri": "pvc://models/base"},
            [
                "hone chat tutor --form Adapter",
                "hone serve tutor --form Adapter | kubectl apply -f -",
                "hone download tutor out --form Adapter",
                "python -m hone_trainer ask . 'Your question'",
                CURL,
            ],
        ),
        ({"effort": None, "form": "Full"}, ["python - <<'END'", "vllm serve . --served-model-name tutor", CURL]),
    ],
)
def test_commands_suit_the_form(changes: dict[str, Any], expected: list[str]) -> None:
    shown = commands(**changes)
    assert len(shown) == len(expected)
    assert all(command.startswith(start) for command, start in zip(shown, expected, strict=True))


@pytest.mark.parametrize("form", ["Adapter", "Merged", "Full", "GGUF"])
def test_hone_has_these_commands_and_options(form: ArtifactForm) -> None:
    group: Any = typer.main.get_command(application())
    lines = [command.split(" | ")[0] for command in commands(form=form) if command.startswith("hone ")]
    of_hone = [shlex.split(line)[1:] for line in lines]
    for name, *arguments in of_hone:
        with group.commands[name].make_context(name, arguments) as context:
            assert context.params.get("model") == "tutor" or context.params["models"] == ["tutor"]
            assert context.params["form"] == form
    assert [name for name, *_ in of_hone] == (["download"] if form == "GGUF" else ["chat", "serve", "download"])


def test_a_service_of_a_model_whose_name_begins_with_a_digit_has_another_name() -> None:
    [serve] = [s.command for s in usage.steps(report(output={"modelName": "3d"})) if s.command.startswith("hone serve")]
    assert serve.splitlines() == [
        "hone serve 3d --form Adapter --name model-3d | kubectl apply -f -",
        "kubectl port-forward service/model-3d 8000",
    ]


@pytest.mark.parametrize("form", ["Adapter", "GGUF"])
def test_the_question_by_curl_is_that_of_the_guide(form: ArtifactForm) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "guides" / "use-your-model.md").read_text()
    [shown] = re.findall(r"^\$ (curl .*\n.*)$", guide, re.M)
    asked = usage.steps(report(form=form))[-1].command
    words = asked.replace("tutor", "support-bot").replace("Your question", "What is a Pod?")
    assert shlex.split(words) == shlex.split(shown)


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


def test_a_server_of_an_adapter_gets_the_switch_that_it_was_trained_with() -> None:
    def served(thinking: str) -> list[str]:
        return shlex.split(next(c for c in commands(training={"thinking": thinking}) if c.startswith("vllm serve")))

    switches = '{"enable_thinking": true, "thinking": true}'
    assert served("Enabled")[-2:] == ["--default-chat-template-kwargs", switches]
    assert "--default-chat-template-kwargs" not in served("Auto")
