"""Models on the way from their volume to those who ask: downloaded, and served where they lie, on real pods."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml
from support.cluster.live import ROWS, approve, config_map, dataset, job, lines, reason_becomes, wait

from hone_dev.cluster.node import NAME as NODE
from hone_dev.life.server import Server, restarts
from hone_dev.models import models, vllm_pod
from hone_trainer.store import manifest

pytestmark = [pytest.mark.e2e, pytest.mark.early, pytest.mark.usefixtures("hone")]
MODELS = ("one", "two")
AGAIN = "again"
"""The job of a second version of model `one`."""
ASKED = "What is 3 and one?"
PAUSE = 5.0
"""Seconds between two questions: a worker of vLLM spins for a second after each."""


@pytest.fixture(scope="module")
def team(new_namespace, hone) -> Iterator[Any]:
    """A namespace with two adapters of one base."""
    base = f"served-{os.urandom(3).hex()}"
    folder = models.hub_root() / "models" / "hone-tests" / base
    models.tiny(folder / "main", heads=2)
    with new_namespace("serving") as kubectl:
        kubectl.apply(config_map("files", {"good.jsonl": lines(ROWS)}), dataset("good", "good.jsonl"))
        for seed, name in enumerate(MODELS):
            kubectl.apply(_trains(name, base, seed))
        kubectl.apply(_trains(AGAIN, base, 7, output={"modelName": MODELS[0]}))
        yield kubectl
    shutil.rmtree(folder)


def _trains(name: str, base: str, seed: int, **spec: Any) -> dict[str, Any]:
    training = {"maxSteps": 2, "learningRate": "0.05", "seed": seed}
    return job(name, {"uri": f"hf://hone-tests/{base}"}, training=training, **spec)


def version(kubectl: Any, job_name: str) -> str:
    """Name of its ModelVersion, once it is Ready."""
    reason_becomes(kubectl, "ftj", job_name, "Finished", "Succeeded")
    name = str(kubectl.get("ftj", job_name)["status"]["modelVersionName"])
    reason_becomes(kubectl, "mv", name, "Ready", "Verified")
    return name


def hone(kubectl: Any, *argv: Any, stdin: str | None = None) -> str:
    """What the command printed."""
    command = [sys.executable, "-m", "hone_cli", *argv, "--namespace", kubectl.namespace]
    env = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, input=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_is_downloaded_as_it_was_recorded(team, tmp_path) -> None:
    name = version(team, MODELS[0])
    artifact = team.get("mv", name)["spec"]["artifacts"][0]
    told = hone(team, "download", name, tmp_path / "out")
    copy = manifest.verify(tmp_path / "out", artifact["digest"])
    assert copy.size_bytes == artifact["sizeBytes"]
    assert f"{copy.size_bytes:,} read now" in told
    pods = team.get("pods", "--selector=hone.dev/component=download")["items"]
    assert all(pod["metadata"].get("deletionTimestamp") for pod in pods)


def test_adapters_on_one_base_follow_their_aliases_in_one_server(team, images) -> None:
    one, second = sorted(version(team, name) for name in (MODELS[0], AGAIN))
    first = {MODELS[0]: one, MODELS[1]: version(team, MODELS[1])}
    promotion = {"promotion": {"policy": "Automatic", "aliases": ["champion"]}}
    for model, name in first.items():
        team("patch", "mdl", model, "--type=merge", "--patch", json.dumps({"spec": promotion}))
        approve(team, name)
        wait(lambda model=model: team.get("mdl", model)["status"].get("aliases"), lambda: team("get", "mdl"))
    aliases = [f"{model}@champion" for model in MODELS]
    rendered = hone(team, "serve", *aliases, "--follow", "--name", "bots", "--gpus", "0", "--image", images["trainer"])
    deployment, service, policy = yaml.safe_load_all(rendered)
    team.apply(*vllm_pod.volume(team.namespace, NODE), vllm_pod.on_cpus(deployment), service, policy)
    wait(
        lambda: team.get("deployment", "bots").get("status", {}).get("readyReplicas"),
        lambda: team("logs", "deployment/bots", "--all-containers", "--tail=40"),
    )
    server = Server(f"http://{team.get('service', 'bots')['spec']['clusterIP']}:8000/v1")
    base = team.get("mv", first[MODELS[0]])["status"]["base"]
    served = server.models()
    assert served == [base, *MODELS]
    answers = {model: server.chances(model, ASKED) for model in served}
    assert len({tuple(chances) for chances in answers.values()}) == len(served)
    stranger = {"lora_name": "one", "lora_path": "/base"}
    assert requests.post(f"{server.url}/unload_lora_adapter", json=stranger, timeout=600).status_code == 403

    before, began = _pods(team), time.monotonic()
    approve(team, second)
    # Every question in between is answered: by the version before, then by the new one.
    wait(lambda: server.chances("one", ASKED) != answers["one"], lambda: _state(team), PAUSE)
    print(f"{time.monotonic() - began:.0f} s from approved to the first token of the new adapter")
    assert server.chances("one", ASKED) not in answers.values()
    assert team.get("mv", second)["status"]["aliases"] == "champion"
    [tree] = json.loads(hone(team, "models", "one", "--json"))
    assert [node["aliases"] for node in tree["versions"]] == [["champion"], []]

    approve(team, second, "Candidate")
    approve(team, first["two"], "Candidate")
    # The same when an approval is withdrawn: the version before follows in one step.
    wait(lambda: server.chances("one", ASKED) == answers["one"], lambda: _state(team), PAUSE)
    wait(lambda: server.models() == [base, "one"], lambda: _state(team))
    assert _pods(team) == before, "nothing was restarted"


def _pods(kubectl: Any) -> dict[str, int]:
    """How often containers of the server were started again, by pod."""
    return restarts(kubectl.get("pods", "--selector=app.kubernetes.io/instance=bots")["items"])


def _state(kubectl: Any) -> str:
    return kubectl("get", "configmap", "hone-served", "--output=yaml") + kubectl(
        "logs", "deployment/bots", "--container=follow", "--tail=40"
    )
