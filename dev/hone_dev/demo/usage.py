"""What to do with the demo's model: the commands that hold for it, as on the page "Use your model"."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from hone_api.kinds.modelversion import ModelVersionSpec
from hone_api.verdicts.servable import verdicts
from hone_dev.demo import ask
from hone_dev.demo.targets import Target

PAGE = "docs/guides/use-your-model.md"
PORT = 8000
SNIPPET = """from transformers import pipeline
ask = pipeline("text-generation", {folder})
print(ask([{{"role": "user", "content": {question}}}], max_new_tokens=200)[0]["generated_text"][-1]["content"])"""


def lines(target: Target, cluster: str, namespace: str, version: Mapping[str, Any]) -> list[str]:
    """One use each, with its commands; the last one asks the model."""
    spec, name = ModelVersionSpec.model_validate(version["spec"]), version["metadata"]["name"]
    samples = version["spec"]["evaluation"].get("samples", [])
    kubectl = f"{kubectl_of(target)} -n {namespace}"
    return [
        f"look around: {kubectl} get dset,ftj,mv",
        *_copied(target, namespace, name, spec, ask.sample_question(samples)),
        *_served(target, namespace, name, spec, kubectl, ask.sample_question(samples)),
        f"converse with it and its base: {hone(target, namespace, 'chat', name)}",
        f"ask it yourself: {ask.command(cluster, samples)}",
    ]


def kubectl_of(target: Target) -> str:
    """The beginning of a command line of kubectl against the demo's cluster."""
    context = f" --context {target.context}" if target.context else ""
    return f"kubectl --kubeconfig {target.kubeconfig}" if target.kubeconfig else f"kubectl{context}"


def hone(target: Target, namespace: str, *arguments: str) -> str:
    """The command line of `hone` against the demo's cluster."""
    kubeconfig = f"KUBECONFIG={target.kubeconfig} " if target.kubeconfig else ""
    context = f" --context {target.context}" if target.context else ""
    return f"{kubeconfig}.venv/bin/python -m hone_cli {' '.join(arguments)} --namespace {namespace}{context}"


def _copied(target: Target, namespace: str, name: str, spec: ModelVersionSpec, question: str) -> Iterator[str]:
    """On this machine: transformers, and Ollama if there is a file for it."""
    forms = [artifact.format for artifact in spec.artifacts]
    loaded = next((form for form in ask.FORMS if form in forms), None)
    if loaded:
        more = ("--form", loaded) if len(forms) > 1 else ()
        yield f"take it with you: {hone(target, namespace, 'download', name, name, *more)}"
        # The base of an adapter comes from the hub that the cluster has.
        endpoint = (target.values.get("huggingFace") or {}).get("endpoint")
        hub = f"HF_ENDPOINT={endpoint} " if endpoint and loaded == "Adapter" else ""
        code = SNIPPET.format(folder=_quoted(name), question=_quoted(question))
        yield f"then ask it with transformers: {hub}.venv/bin/python -c {shlex.quote(code)}"
    if "GGUF" not in forms:
        yield f"for Ollama and llama.cpp, a job exports GGUF: {PAGE}"
        return
    yield f"take the GGUF file: {hone(target, namespace, 'download', name, f'{name}-gguf', '--form', 'GGUF')}"
    model, file = spec.model_name, f"FROM ./{name}-gguf/{spec.model_name}.gguf"
    create = f"echo {shlex.quote(file)} > Modelfile && ollama create {model} -f Modelfile && ollama run {model}"
    yield f"then ask it with Ollama: {create}"


def _served(
    target: Target, namespace: str, name: str, spec: ModelVersionSpec, kubectl: str, question: str
) -> Iterator[str]:
    """In the cluster, by vLLM."""
    vllm = verdicts(spec)[0]
    if not vllm.loads:
        yield f"vLLM does not serve it: {vllm.why}"
        return
    serve = hone(target, namespace, "serve", name)
    yield f"serve it where a node has a GPU, from vLLM's image: {serve} | {kubectl} apply -f -"
    yield f"then forward its port: {kubectl} port-forward service/{spec.model_name} {PORT}"
    body = {"model": spec.model_name, "messages": [{"role": "user", "content": question}]}
    curl = f"curl -s localhost:{PORT}/v1/chat/completions -H 'Content-Type: application/json'"
    yield f"and ask it with curl: {curl} -d {shlex.quote(_quoted(body))}"


def _quoted(value: object) -> str:
    """As JSON. A string of it, in which no character is escaped as two, is also one of Python."""
    return json.dumps(value, ensure_ascii=False)
