"""The last lines of the demo: each is a command of the program that it names, and holds for the model."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hone_cli.__main__ import application
from hone_cli.serving.models import served
from hone_dev.demo import targets, usage
from hone_trainer.artifacts.usage import CHAT

pytestmark = pytest.mark.pure
HUB = {"huggingFace": {"endpoint": "http://10.0.0.1:8090"}}
EMBEDDED = targets.Target(Path("/a/kubeconfig"), None, HUB)
PROD = targets.Target(None, "prod", {})
QUESTION = 'What\'s `spec.x` for "$1" 🙂?'


def version(*forms: str, **adapter: Any) -> dict[str, Any]:
    digest = "sha256:" + "0" * 64
    artifacts = [
        {"format": form, "uri": f"pvc://hone-store/models/x/{form.lower()}", "digest": digest, "sizeBytes": 1}
        for form in forms
    ]
    lineage = {
        "baseModel": {"uri": "hf://owner/base@main", "location": "pvc://hone-store/base-models/b"},
        "datasets": [],
        "job": {"name": "run", "uid": "u"},
        "method": "SFT",
        "hyperParameters": {"adapter": {"type": "LoRA", "rank": 16, **adapter}},
        "seed": 0,
    }
    samples = [{"prompt": f"{QUESTION}\n", "base": "No.", "tuned": "Yes."}]
    spec = {"modelName": "ops-commands", "version": 1, "artifacts": artifacts, "lineage": lineage}
    spec["evaluation"] = {"numbers": [], "samples": samples}
    return {"metadata": {"name": "ops-commands-v1", "namespace": "demo"}, "spec": spec}


def uses(*forms: str, target: targets.Target = EMBEDDED, **adapter: Any) -> dict[str, str]:
    """The command of each use."""
    lines = usage.lines(target, "embedded", "demo", version(*forms, **adapter))
    return dict(line.split(": ", 1) for line in lines)


def of_kind(commands: dict[str, str]) -> list[str]:
    """The programs, in order."""
    kinds = ("hone_cli download", "hone_cli serve", "hone_cli chat", "python -c", "port-forward", "curl", "ollama")
    return [kind for text in commands.values() for kind in kinds if kind in text]


@pytest.mark.parametrize(
    ("forms", "adapter", "expected"),
    [
        (
            ["Adapter"],
            {},
            ["hone_cli download", "python -c", "hone_cli serve", "port-forward", "curl", "hone_cli chat"],
        ),
        (["Adapter"], {"type": "DoRA"}, ["hone_cli download", "python -c", "hone_cli chat"]),
        (
            ["Adapter", "Merged", "GGUF"],
            {},
            [
                "hone_cli download",
                "python -c",
                "hone_cli download",
                "ollama",
                "hone_cli serve",
                "port-forward",
                "curl",
                "hone_cli chat",
            ],
        ),
    ],
)
def test_the_lines_suit_the_forms_of_the_model(forms: list[str], adapter: dict[str, Any], expected: list[str]) -> None:
    assert of_kind(uses(*forms, **adapter)) == expected


@pytest.mark.parametrize("target", [EMBEDDED, PROD], ids=["embedded", "prod"])
@pytest.mark.parametrize("forms", [["Adapter"], ["Adapter", "Merged", "GGUF"]], ids=["one", "several"])
def test_hone_has_these_commands_and_options(target: targets.Target, forms: list[str]) -> None:
    where = "KUBECONFIG=/a/kubeconfig " if target.kubeconfig else ""
    of_hone = [text.split(" | ")[0] for text in uses(*forms, target=target).values() if "hone_cli" in text]
    assert len(of_hone) == len(forms) // 3 + 3
    for text in of_hone:
        assert text.startswith(f"{where}.venv/bin/python -m hone_cli ")
        words = shlex.split(text.removeprefix(where))[3:]
        assert ("--context" in words) == bool(target.context)
        assert CliRunner().invoke(application(), [*words, "--help"]).exit_code == 0


def test_the_snippet_is_that_of_the_model_card_and_reads_the_base_from_the_demos_hub() -> None:
    command = uses("Adapter")["then ask it with transformers"]
    hub, python, option, code = shlex.split(command)
    assert (hub, python, option) == ("HF_ENDPOINT=http://10.0.0.1:8090", ".venv/bin/python", "-c")
    [expected] = re.findall(r"<<'END'\n(.*)\nEND", CHAT, re.S)
    read = ast.dump(ast.parse(code)).replace(repr(QUESTION), "'Your question'").replace("'ops-commands-v1'", "'.'")
    assert read == ast.dump(ast.parse(expected))
    assert not uses("Full")["then ask it with transformers"].startswith("HF_ENDPOINT")
    assert not uses("Adapter", target=PROD)["then ask it with transformers"].startswith("HF_ENDPOINT")


def test_the_served_model_is_asked_by_its_name_at_its_service() -> None:
    commands = uses("Adapter", target=PROD)
    [model] = served([version("Adapter")])
    assert commands["then forward its port"] == (
        f"kubectl --context prod -n demo port-forward service/{model.name} 8000"
    )
    *_, url, _, _, _, body = shlex.split(commands["and ask it with curl"])
    assert url == "localhost:8000/v1/chat/completions"
    assert json.loads(body) == {"model": model.name, "messages": [{"role": "user", "content": QUESTION}]}


def test_the_last_line_asks_the_model() -> None:
    *_, last = usage.lines(EMBEDDED, "embedded", "demo", version("Adapter"))
    assert last.startswith("ask it yourself: .venv/bin/python -m hone_dev ask ")


def test_without_gguf_the_page_that_says_how_is_named() -> None:
    [page] = re.findall(r"docs/\S+", uses("Adapter")["for Ollama and llama.cpp, a job exports GGUF"])
    assert "### In Ollama" in (Path(__file__).parents[3] / page).read_text()
