"""How to use a model of one form: the commands of its model card and of its report, which are the same. Pure.

Everything comes from the content of report.json.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hone_api.blocks.training import DEFAULT_RANK, thinking_switches
from hone_api.estimate.advice import SERVED_RANKS
from hone_api.estimate.memory import reaches_experts
from hone_api.verdicts.servable import TEMPLATE_KWARGS, VLLM_RANK
from hone_trainer.artifacts.servable import base_name

CHAT = """python - <<'END'
from transformers import pipeline
ask = pipeline("text-generation", ".")
print(ask([{"role": "user", "content": "Your question"}], max_new_tokens=200)[0]["generated_text"][-1]["content"])
END"""
HONE_ASK = "python -m hone_trainer ask . 'Your question'"
WRITE_ON = """python - <<'END'
from transformers import pipeline
print(pipeline("text-generation", ".")("The beginning of a text", max_new_tokens=200)[0]["generated_text"])
END"""


PORT = 8000


@dataclass(frozen=True)
class NextStep:
    """A recommended next action."""

    text: str
    command: str = ""
    is_server: bool = False
    """Whether the command starts a server of OpenAI's API on `PORT`."""


def steps(report: Mapping[str, Any]) -> list[NextStep]:
    """What holds for a model of this form. A reward model does not answer: it is only downloaded."""
    uses = [*_from_the_cluster(report), *_here(report)]
    if any(step.is_server for step in uses):
        uses.append(NextStep("Ask a server that you started so, from another terminal:", _curl(report)))
    return uses


def _from_the_cluster(report: Mapping[str, Any]) -> Iterator[NextStep]:
    """By `hone`, of a ModelVersion. A checkpoint that was exported later is not one: its report has no effort."""
    plan, form = report["plan"], report["form"]
    if not report["effort"] or (form == "Adapter" and plan.get("modelAdapter")):
        return
    name = shlex.quote(plan["output"]["modelName"])
    if form != "GGUF" and plan["method"] not in ("Reward", "DAPT"):
        text = "Ask it next to its base, in the cluster that trained it (the newest version; name:3 is version 3):"
        yield NextStep(text, f"hone chat {name} --form {form}")
    if form != "GGUF" and plan["method"] != "Reward" and (form != "Adapter" or _room(report)):
        text = "Serve it there with vLLM (the newest approved version), on port 8000 of this machine:"
        yield NextStep(text, _hone_serve(plan["output"]["modelName"], form), is_server=True)
    yield NextStep("Copy it from that cluster into the folder out:", f"hone download {name} out --form {form}")


def _hone_serve(model: str, form: str) -> str:
    server, name = model, ""
    if not model[:1].isalpha():  # a Service's name begins with a letter
        server = f"model-{model}"
        name = f" --name {shlex.quote(server)}"
    serve = f"hone serve {shlex.quote(model)} --form {form}{name} | kubectl apply -f -"
    return f"{serve}\nkubectl port-forward {shlex.quote(f'service/{server}')} {PORT}"


def _curl(report: Mapping[str, Any]) -> str:
    """OpenAI's API, as vLLM and llama.cpp have it. A model of texts has no chat template to rely on."""
    body: dict[str, Any] = {"model": report["plan"]["output"]["modelName"]}
    if report["plan"]["method"] == "DAPT":
        path, body = "completions", {**body, "prompt": "The beginning of a text", "max_tokens": 200}
    else:
        path, body = "chat/completions", {**body, "messages": [{"role": "user", "content": "Your question"}]}
    header = "-H 'Content-Type: application/json'"
    return f"curl -s localhost:{PORT}/v1/{path} {header} \\\n  -d {shlex.quote(json.dumps(body))}"


def _here(report: Mapping[str, Any]) -> list[NextStep]:
    """On a machine that has the folder of the model."""
    plan, form, name = report["plan"], report["form"], shlex.quote(report["plan"]["output"]["modelName"])
    if plan["method"] == "Reward":
        return []
    if form == "GGUF":
        modelfile = shlex.quote(f"FROM ./{plan['output']['modelName']}.gguf")
        ollama = f"echo {modelfile} > Modelfile && ollama create {name} -f Modelfile && ollama run {name}"
        server = f"llama-server -m {name}.gguf --port {PORT}"
        return [
            NextStep("Ask it with llama.cpp, in this folder:", f"llama-cli -m {name}.gguf -p 'Your question'"),
            NextStep("Ask it with Ollama, in this folder:", ollama),
            NextStep("Serve it with llama.cpp, in this folder:", server, is_server=True),
        ]
    library = "transformers and PEFT" if form == "Adapter" else "transformers"
    ask = NextStep(f"Ask it with {library}, in this folder:", WRITE_ON if plan["method"] == "DAPT" else CHAT)
    if form != "Adapter":
        serve = f"vllm serve . --served-model-name {name}"
        return [ask, NextStep("Serve it with vLLM, in this folder:", serve, is_server=True)]
    if plan.get("modelAdapter"):
        return [
            NextStep(
                "Use the merged model next to this folder: the base of this adapter was merged for this run alone."
            )
        ]
    if not plan["modelUri"].startswith("hf://"):
        needs = "Serve it: adapter_config.json names the path of the base model, which the server also needs."
        return [NextStep("Ask it, where the base model is mounted as in the run:", HONE_ASK), NextStep(needs)]
    return [ask, *_served_adapter(report)]


def _served_adapter(report: Mapping[str, Any]) -> Iterator[NextStep]:
    plan, room = report["plan"], _room(report)
    # Experts that PEFT holds together are loaded over vLLM's API alone, with a setting: `hone serve` knows it.
    on_experts = any(map(reaches_experts, (plan.get("adapter") or {}).get("targets") or ()))
    if room is None or on_experts:
        return
    base = shlex.quote(base_name(plan["modelUri"]))
    more = f" --max-lora-rank {room}" if room > VLLM_RANK else ""
    if switches := thinking_switches(plan.get("training", {}).get("thinking", "")):
        more += f" {TEMPLATE_KWARGS} {shlex.quote(json.dumps(switches))}"
    command = f"vllm serve {base} --enable-lora --lora-modules {shlex.quote(plan['output']['modelName'])}=.{more}"
    yield NextStep("Serve it with vLLM, as an adapter on its base:", command, is_server=True)


def _room(report: Mapping[str, Any]) -> int | None:
    """--max-lora-rank of vLLM for the adapter; None: vLLM does not load it, e.g. DoRA."""
    rank = report["resolved"].get("adapterRank") or DEFAULT_RANK
    if (report["plan"].get("adapter") or {}).get("type") == "DoRA":
        return None
    return next((most for most in SERVED_RANKS if most >= rank), None)
