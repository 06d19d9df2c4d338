"""Commands that people type, on real pods: from a file of 50,000 rows to a conversation, from a hosted model to an
open one, a sweep to its end; and a volume that fills up."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.live import ROWS, conditions, config_map, dataset, fill, job, lines, small_volume, wait

from hone_cli.errors import CliExit
from hone_cli.reach.incoming import PIECE
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

    def run(*words: Any, stdin: str = "", code: int = 0) -> str:
        program = [sys.executable, "-m", "hone_cli", *map(str, words)]
        env = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)}
        done = subprocess.run(program, env=env, capture_output=True, text=True, input=stdin, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout

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


def _write_what_one_holds_of_a_hosted_model(folder: Path) -> None:
    """A job, its files, and a batch of answers that share nothing with the right ones, so parity can be shown."""

    def turns(n: int, *answers: str) -> dict[str, Any]:
        told = [{"role": "assistant", "content": answer} for answer in answers]
        return {"messages": [{"role": "user", "content": f"What is {n} and one?"}, *told]}

    held = range(100, 164)
    body = {"choices": [{"message": {"role": "assistant", "content": "#"}}]}
    answers = [{"custom_id": f"r{n}", "response": {"status_code": 200, "body": body}} for n in held]
    files = {
        "train.jsonl": [turns(n, f"It is {n + 1}.") for n in range(40)],
        "validation.jsonl": [turns(n, f"It is {n + 1}.") for n in held],
        "answers.jsonl": [*({"custom_id": f"r{n}", "body": turns(n)} for n in held), *answers],
    }
    for name, rows in files.items():
        (folder / name).write_text(lines(rows))
    numbers = {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 2}
    method = {"type": "supervised", "supervised": {"hyperparameters": numbers}}
    old = {"id": "ftjob-1", "model": "gpt-4o-mini", "training_file": "file-t", "method": method}
    (folder / "bot.json").write_text(json.dumps(old))


@pytest.mark.long
def test_a_hosted_model_is_left_with_a_proof_of_parity(team, command, tmp_path: Path) -> None:
    """Every step that `hone migrate openai` prints, as it prints it."""
    (kubectl, base), hone = team, command
    _write_what_one_holds_of_a_hosted_model(tmp_path)
    files = ("-t", "train.jsonl", "--validation", "validation.jsonl", "-r", "answers.jsonl")
    printed = hone("migrate", "openai", "bot.json", *files, "-m", base, "--price", "1.2", "--gpus", "0")
    manifest = tmp_path / "bot-migration" / "manifest.yaml"
    bodies = [*yaml.safe_load_all(manifest.read_text())]
    spec = bodies[-1]["spec"]
    spec["resources"] |= {"cpu": "100m", "memory": "2Gi"}
    spec["evaluation"] |= {"maxNewTokens": 4}
    manifest.write_text(yaml.safe_dump_all(bodies))
    space = ("--namespace", kubectl.namespace)
    _, steps = printed.split("\nNext:\n")
    *before, run, report = [shlex.split(step)[1:] for step in steps.splitlines()]
    for words in before:
        assert hone(*words, *space).startswith("configmap://bot")
    assert "Next: hone chat bot" in hone(*run, "--yes", *space)
    shown = hone(*report, "--gpu-hour", "2.52", "--tokens-per-second", "1400", *space)
    assert re.search(r"^exact: .* difference .* to .* \(95 %\), 64 rows: parity within 0.05: shown$", shown, re.M), (
        shown
    )
    assert "Old model: 1.2 for a million tokens\nOpen model: 0.5 for a million tokens" in shown
    assert "hyperparameters.learning_rate_multiplier: the rate is a number of its own here" in shown

    def judged() -> bool:
        (candidate,) = kubectl.get("models.hone.dev", "bot")["status"].get("candidates") or [{}]
        return candidate.get("gates") == "Passed"

    wait(judged, lambda: kubectl.get("models.hone.dev", "bot"))
    approved = hone("approve", "bot:1", *space)
    assert "Gates: Passed\n" in approved
    assert "champion points to bot-v1 from now on." in approved


def test_an_upload_into_a_volume_that_fills_up_goes_on_once_there_is_room(team, command, tmp_path: Path) -> None:
    (kubectl, _), hone = team, command
    file = tmp_path / "large.jsonl"
    file.write_bytes(b'{"text": "of a row"}\n' * (40 * 2**20 // 21))
    space = ("--namespace", kubectl.namespace)
    with small_volume(kubectl, "small", 64, tmp_path / "volume") as volume:
        filler = fill(volume, 2**20)
        refused = hone("upload", "large.jsonl", "small", *space, code=CliExit.FAILED)
        assert re.fullmatch(r"Starting pod .*\nhone: the volume has room for .*, but .*: make room in it.*\n", refused)
        filler.unlink()

        def others() -> None:
            wait(lambda: any(each.stat().st_size for each in volume.iterdir()), lambda: "nothing came", every=0.005)
            fill(volume, PIECE)

        filling = threading.Thread(target=others)
        filling.start()
        refused = hone("upload", "large.jsonl", "small", *space, code=CliExit.FAILED)
        filling.join()
        (part,) = volume.glob(".large*.part")
        (came,) = re.findall(
            r"\nhone: the volume is full after ([0-9,]+) of .*, it goes on with what is there\n", refused
        )
        assert 0 < int(came.replace(",", "")) == part.stat().st_size < file.stat().st_size
        filler.unlink()
        assert hone("upload", "large.jsonl", "small", *space) == "pvc://small/large.jsonl\n"
        assert [each.name for each in volume.iterdir()] == ["large.jsonl"]
        assert (volume / "large.jsonl").read_bytes() == file.read_bytes()


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
