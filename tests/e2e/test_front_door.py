"""Commands that people type, on real pods: from a file of 50,000 rows to a conversation, and a sweep to its end."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.live import ROWS, conditions, config_map, dataset, job, lines

from hone_dev.models import models

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]
SMALL = {
    'epochs: "1"': "maxSteps: 2",
    "  resources:": "  evaluation:\n    maxRows: 16\n  resources:",
    'cpu: "2"': "cpu: 100m",
    "memory: 8Gi": "memory: 2Gi",
}
"""What a test changes in the manifest: two steps, a short evaluation, on less than a core."""


@pytest.fixture(scope="module")
def team(new_namespace, hone) -> Iterator[tuple[Any, str]]:
    """A namespace, and the base model that its hub has."""
    base = f"door-{os.urandom(3).hex()}"
    folder = models.hub_root() / "models" / "hone-tests" / base
    models.tiny(folder / "main", heads=2)
    with new_namespace("door") as kubectl:
        yield kubectl, f"hone-tests/{base}"
    shutil.rmtree(folder)


@pytest.fixture
def command(team, tmp_path: Path) -> Callable[..., str]:
    """Runs `hone` in the namespace, and returns what it printed."""
    kubectl, _ = team

    def run(*words: Any, stdin: str = "") -> str:
        program = [sys.executable, "-m", "hone_cli", *map(str, words)]
        env = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)}
        done = subprocess.run(program, env=env, capture_output=True, text=True, input=stdin, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_from_a_large_file_to_a_conversation(team, command, tmp_path: Path) -> None:
    (kubectl, base), hone = team, command
    space = ("--namespace", kubectl.namespace)
    rows = [{"question": f"What is {i} and one?", "answer": f"It is {i + 1}."} for i in range(50_000)]
    file = tmp_path / "support.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert file.stat().st_size > 2**20
    hone("init", "support.jsonl", "--model", base, "--gpus", "0")
    manifest = (tmp_path / "support.yaml").read_text()
    for before, after in SMALL.items():
        assert before in manifest
        manifest = manifest.replace(before, after)
    (tmp_path / "support.yaml").write_text(manifest)
    assert hone("upload", "support.jsonl", "support", *space) == "pvc://support/support.jsonl\n"
    assert hone("upload", "support.jsonl", "support", *space) == "pvc://support/support.jsonl\n", "it is there already"
    assert "Next: hone chat support" in hone("run", "support.yaml", "--yes", *space)
    assert kubectl.get("dset", "support")["status"]["rows"] == 50_000
    assert hone("logs", "support-1", *space).strip()
    assert conditions(kubectl.get("ftj", "support-1"))["RowsEncoded"]["reason"] == "Encoded"
    assert re.search("─ base .*─ tuned", hone("chat", "support", *space, stdin="What is 3 and one?\n\n"))
    pods = kubectl.get("pods", "--selector=hone.dev/component=chat")["items"]
    assert all(pod["metadata"].get("deletionTimestamp") for pod in pods)


@pytest.mark.long
def test_a_sweep_ends_in_the_manifest_to_keep(team, command, tmp_path: Path) -> None:
    """The manifest as it is learns nothing, and one of its trials does: the same rows show it."""
    kubectl, base = team
    kubectl.apply(config_map("files", {"good.jsonl": lines(ROWS)}))
    training = {"maxSteps": 6, "learningRate": "0.000001"}
    swept = job("small", {"uri": f"hf://{base}"}, training=training)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump_all([dataset("good", "good.jsonl"), swept]))
    vary = ("--vary", "training.learningRate=0.009,0.01", "--trials", "2", "--yes")
    words = ("sweep", "small.yaml", *vary, "--namespace", kubectl.namespace)
    result = json.loads(command(*words, "-o", "json"))
    assert [trial["state"] for trial in result["trials"]] == ["Finished"] * 2, result
    assert (result["better"], result["chosen"]) == (True, 2), result
    rate = result["trials"][1]["settings"]["training.learningRate"]
    _, kept = yaml.safe_load_all(command(*words))
    assert kept == {**swept, "spec": {**swept["spec"], "training": {**training, "learningRate": rate}}}
