"""`hone run` and what follows it, at a real API server with a real operator; the pods are played by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from support.lives.shell import DATASET, JOB
from typer.testing import CliRunner

from hone_cli.__main__ import application
from hone_cli.errors import CliExit, CommandError, printable
from hone_dev.tools import tools

pytestmark = pytest.mark.apiserver
MANIFEST = DATASET + JOB
AT = "2026-01-01T00:00:00Z"


class Done(NamedTuple):
    """What a person sees of a command that has ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def hone(namespace, apiserver, monkeypatch):
    """Runs `hone` as a script does, without a terminal as standard input."""

    def run(*words, environment=None, kubeconfig=apiserver):
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        arguments = [*map(str, words), "--namespace", namespace.name]
        done = CliRunner().invoke(application(arguments[:1]), arguments, env=environment)
        if isinstance(done.exception, CommandError):
            return Done(CliExit.FAILED, done.stdout, f"hone: {printable(str(done.exception))}\n")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "job.yaml").write_text(MANIFEST)
    return tmp_path / "job.yaml"


def status(namespace, phase, *conditions, name="job", **fields):
    """Write a status as the operator does; without an operator nobody changes it."""
    listed = [
        {"type": type_, "status": "True", "reason": phase, "message": "", "lastTransitionTime": AT}
        for type_ in conditions
    ]
    body = {"status": {"phase": phase, "conditions": listed, **fields}}
    namespace.patch("FineTuneJob", name, body, "status")


def one_line(done, words):
    assert done.returncode == CliExit.FAILED, done
    assert re.fullmatch(r"hone: .+\n", done.stderr), done.stderr
    assert words in done.stderr


def test_it_asks_before_it_applies_and_a_script_says_yes(namespace, hone, manifest) -> None:
    one_line(hone("run", manifest), "nothing was applied: add --yes")
    assert namespace.names("FineTuneJob") == []
    done = hone("run", manifest, "--yes", "--detach")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"Applied.\nWatch it: hone watch job -n {namespace.name}\n")
    assert (namespace.names("Dataset"), namespace.names("FineTuneJob")) == (["rows"], ["job"])
    again = hone("run", manifest, "--yes", "--detach")
    assert again.stdout.startswith("Dataset rows stays\nFineTuneJob job stays\n")


def test_on_a_terminal_it_asks_once(namespace, manifest, apiserver, terminal) -> None:
    words = ("run", str(manifest), "--detach", "--namespace", namespace.name)
    for answer, names, code in (("n", [], 1), ("y", ["job"], 0)):
        screen = terminal(*words, KUBECONFIG=str(apiserver))
        screen.until(f"Apply to namespace {namespace.name}? [y/N]:")
        assert namespace.names("FineTuneJob") == []
        screen.press(f"{answer}\r")
        assert screen.end() == code
        assert namespace.names("FineTuneJob") == names


def test_a_refused_object_stops_all_of_them(namespace, hone, manifest) -> None:
    manifest.write_text(MANIFEST.replace("modelName: bot", "modelName: Bot!"))
    done = hone("run", manifest, "--yes")
    assert (done.returncode, done.stderr) == (CliExit.REFUSED, "Nothing was applied.\n")
    assert namespace.names("Dataset") == []
    manifest.write_text(MANIFEST.replace("name: job", f"name: {'j' * 53}"))
    assert "is invalid: metadata.name must be at most 52 characters" in hone("run", manifest, "--yes").stdout


def test_a_manifest_with_line_ends_of_windows_is_the_same(namespace, hone, manifest) -> None:
    assert hone("run", manifest, "--yes", "--detach").returncode == 0
    manifest.write_bytes(b"\xef\xbb\xbf" + MANIFEST.replace("\n", "\r\n").encode())
    again = hone("plan", manifest)
    assert again.stdout.startswith("Dataset rows stays\nFineTuneJob job stays\n"), again


@pytest.mark.parametrize(("ends", "code"), [("Succeeded", CliExit.DONE), ("Failed", CliExit.RUN_FAILED)])
def test_a_run_is_watched_to_its_end_by_plain_lines(namespace, hone, manifest, ends, code) -> None:
    assert hone("run", manifest, "--yes", "--detach").returncode == 0
    status(namespace, "Running", "Running", progress={"stage": "Training", "step": 40, "totalSteps": 100})
    failure = {"failure": {"code": "OutOfMemory", "message": "rank 0", "hint": "Ask for more."}}
    ended = {"modelVersionName": "bot-v1", **(failure if ends == "Failed" else {})}
    timer = threading.Timer(3, status, (namespace, ends, "Finished", ends), ended)
    timer.start()
    done = hone("watch", "job")
    timer.join()
    assert done.returncode == code, done.stderr
    lines = done.stdout.splitlines()
    assert "40/100" in lines[0]
    assert "\x1b" not in done.stdout
    expected = {"Succeeded": "Next: hone chat bot", "Failed": "More: hone explain OutOfMemory; hone logs job"}
    assert lines[-1] == f"{expected[ends]} -n {namespace.name}"


def test_several_jobs_are_watched_and_one_that_fails_counts(namespace, hone, manifest) -> None:
    job = MANIFEST.partition("---\n")[2]
    manifest.write_text(f"{MANIFEST}---\n{job.replace('name: job', 'name: other')}")
    assert hone("run", manifest, "--yes", "--detach").returncode == 0
    status(namespace, "Failed", "Finished", "Failed", failure={"code": "OutOfMemory", "message": "rank 0"})
    status(namespace, "Succeeded", "Finished", "Succeeded", name="other")
    done = hone("run", manifest, "--yes")
    assert "job has failed: OutOfMemory" in done.stdout
    assert "other has succeeded" in done.stdout
    assert done.returncode == CliExit.RUN_FAILED


@pytest.mark.parametrize(
    ("shell", "line", "more", "expected"),
    [
        ("bash", "COMP_WORDS", {"COMP_CWORD": "4"}, "job"),
        ("zsh", "_TYPER_COMPLETE_ARGS", {}, """_arguments '*: :(("job"))'"""),
        ("fish", "_TYPER_COMPLETE_ARGS", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}, "job"),
    ],
)
def test_a_shell_completes_the_names_of_jobs(namespace, hone, manifest, apiserver, shell, line, more, expected) -> None:
    assert hone("run", manifest, "--yes", "--detach").returncode == 0
    words = {line: f"hone watch --namespace {namespace.name} jo", **more}
    environment = {**os.environ, "_HONE_COMPLETE": f"complete_{shell}", "KUBECONFIG": str(apiserver), **words}
    done = subprocess.run([sys.executable, "-m", "hone_cli"], env=environment, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (expected, "")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("models", ["bot"]),
        ("retrain", ["bot"]),
        ("chat", ["bot", "bot-v1"]),
        ("download", ["bot", "bot-v1"]),
        ("report", ["bot", "bot-v1"]),
        ("approve", ["bot", "bot-v1"]),
    ],
)
def test_a_shell_completes_models_and_versions(namespace, apiserver, command, expected) -> None:
    namespace.create("Model", "bot", {})
    base = {"uri": "hf://owner/base"}
    artifact = {"format": "Adapter", "uri": "pvc://s/x", "digest": f"sha256:{'0' * 64}", "sizeBytes": 1}
    lineage = {"baseModel": base, "datasets": [], "job": {"name": "j", "uid": "u"}, "method": "SFT", "seed": 1}
    spec = {"modelName": "bot", "version": 1, "artifacts": [artifact], "lineage": lineage}
    namespace.create("ModelVersion", "bot-v1", spec)
    words = {"COMP_WORDS": f"hone {command} --namespace {namespace.name} bo", "COMP_CWORD": "4"}
    environment = {**os.environ, "_HONE_COMPLETE": "complete_bash", "KUBECONFIG": str(apiserver), **words}
    done = subprocess.run([sys.executable, "-m", "hone_cli"], env=environment, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (expected, "")


@pytest.mark.parametrize(("low", "code", "word"), [("-0.01", 0, "shown"), ("-0.3", 5, "not shown")])
def test_a_migration_is_admitted_and_ends_with_its_proof(namespace, hone, tmp_path, low, code, word) -> None:
    turns = [{"role": "user", "content": "Q {}"}, {"role": "assistant", "content": "A {}"}]
    rows = [{"messages": [{**turn, "content": turn["content"].format(n)} for turn in turns]} for n in range(20)]
    for name, part in (("train", rows[:15]), ("held", rows[15:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (tmp_path / "bot.json").write_text('{"model": "gpt-4o-mini", "training_file": "file-1", "seed": 1}')
    held, out = tmp_path / "held.jsonl", tmp_path / "out"
    words = ["migrate", "openai", tmp_path / "bot.json", "-t", tmp_path / "train.jsonl", "--validation", held]
    done = CliRunner().invoke(application(), [*map(str, [*words, "-r", held, "-m", "o/m", "-o", out])])
    assert done.exit_code == 0, done.output
    applied = hone("run", out / "manifest.yaml", "--yes", "--detach")
    assert (applied.returncode, applied.stderr) == (0, ""), applied
    assert namespace.get("Model", "bot")["spec"]["promotion"]["gates"][0]["metric"] == "parity_exact"
    assert hone("migrate", "report", out).returncode == 1, "there is no version yet"
    numbers = [
        {"name": f"parity_{name}", "dataset": "bot-held/train", "tuned": "0.9", "against": "0.8", "rows": 5}
        | {"againstLow": low, "againstHigh": "0.2"}
        for name in ("exact", "chrf")
    ]
    artifact = {"format": "Adapter", "uri": "pvc://s/x", "digest": f"sha256:{'0' * 64}", "sizeBytes": 1}
    lineage = {
        "baseModel": {"uri": "hf://o/m"},
        "datasets": [],
        "job": {"name": "j", "uid": "u"},
        "method": "SFT",
        "seed": 1,
    }
    spec = {"modelName": "bot", "version": 1, "artifacts": [artifact], "lineage": lineage}
    namespace.create("ModelVersion", "bot-v1", {**spec, "evaluation": {"numbers": numbers}})
    done = hone("migrate", "report", out, "--price", "1.2", "--gpu-hour", "3.6", "--tokens-per-second", "1000")
    assert done.returncode == code, done
    interval = f"difference {float(low):+.4f} to +0.2000 (95 %), 5 rows: parity within 0.05: {word}"
    assert f"exact: new 0.9000, old 0.8000, {interval}" in done.stdout
    assert "\n\n\n" not in done.stdout
    assert "Open model: 1 for a million tokens" in done.stdout
    assert done.stdout.endswith("\nNext: hone approve bot-v1, then the alias champion points to it\n") == (code == 0)


def test_a_terminal_of_40_columns_shows_the_screen_and_ctrl_c_leaves_the_run(
    namespace, hone, manifest, apiserver, terminal
) -> None:
    assert hone("run", manifest, "--yes", "--detach").returncode == 0
    curve = " ".join(f"{step}:{4 - step / 50}" for step in range(10, 100, 10))
    status(
        namespace,
        "Running",
        "Running",
        progress={"stage": "Training", "step": 40, "totalSteps": 100, "loss": "3.2"},
        metrics=[{"name": "loss", "curve": curve}],
        memory={"estimated": 3 * 2**30},
    )
    words = ("watch", "job", "--namespace", namespace.name)
    screen = terminal(*words, columns=40, KUBECONFIG=str(apiserver), NO_COLOR="1")
    screen.until("40/100")
    screen.until(lambda shown: "\nloss 3.20" in shown)
    screen.until("▁")
    screen.until("memory 3.0 GiB a pod estimated")
    screen.press("\x03")
    screen.until("job goes on.")
    assert namespace.get("FineTuneJob", "job")["status"]["phase"] == "Running"


def test_runs_are_listed_suspended_resumed_compared_and_cancelled(namespace, hone, manifest) -> None:
    assert "has no run" in hone("list").stderr
    assert hone("run", manifest, "--yes", "--detach").returncode == 0
    (row,) = json.loads(hone("list", "-o", "json").stdout)
    assert (row["name"], row["model"]) == ("job", "bot")
    assert "job" in hone("list", environment={"COLUMNS": "40"}).stdout
    for command, expected in (("suspend", True), ("resume", False)):
        assert hone(command, "job").returncode == 0
        assert namespace.get("FineTuneJob", "job")["spec"]["suspend"] is expected
    second = MANIFEST.replace("name: job", "name: other").replace("modelName: bot", "modelName: tutor")
    manifest.write_text(second)
    assert hone("run", manifest, "--yes", "--detach").returncode == 0
    found = json.loads(hone("compare", "job", "other", "-o", "json").stdout)
    assert found["settings that differ"] == {"output.modelName": ["bot", "tutor"]}
    one_line(hone("cancel", "job"), "nothing was cancelled: add --yes")
    assert hone("cancel", "job", "--yes").stdout == "job is cancelled.\n"
    namespace.until(lambda: namespace.names("FineTuneJob") == ["other"], "the job is gone")


@pytest.mark.parametrize("command", ["watch", "suspend", "resume", "cancel", "logs"])
def test_a_run_that_does_not_exist_is_one_line_that_names_the_others(namespace, hone, manifest, command) -> None:
    assert hone("run", manifest, "--yes", "--detach").returncode == 0
    one_line(hone(command, "jbo"), f"namespace {namespace.name} has no FineTuneJob jbo: it has job")
    if command == "logs":
        one_line(hone(command, "job"), "no pod of job trains or trained here")
    if command in ("suspend", "resume", "cancel"):
        status(namespace, "Succeeded", "Finished", "Succeeded")
        one_line(hone(command, "job"), "job is Succeeded: it has nothing to stop or continue")


def test_a_cluster_that_does_not_answer_is_one_line(hone, manifest, apiserver, tmp_path) -> None:
    document = yaml.safe_load(apiserver.read_text())
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    (tmp_path / "dead").write_text(yaml.safe_dump(document))
    for words in (("list",), ("run", manifest, "--yes"), ("plan", manifest)):
        one_line(hone(*words, kubeconfig=tmp_path / "dead"), "the cluster does not answer")
        one_line(hone(*words, kubeconfig=tmp_path / "absent"), "no cluster: ")


def test_kubectl_finds_its_plugin_which_is_the_same_command(namespace, hone, manifest, apiserver) -> None:
    assert hone("run", manifest, "--yes", "--detach").returncode == 0

    def kubectl(*words):
        path = f"{Path(sys.executable).parent}:{os.defpath}"
        env = {**os.environ, "PATH": path, "KUBECONFIG": str(apiserver)}
        return subprocess.run([tools.kubectl(), *words], env=env, capture_output=True, text=True)

    listed = kubectl("plugin", "list")
    assert (listed.returncode, listed.stderr) == (0, ""), listed
    assert f"{Path(sys.executable).parent / 'kubectl-hone'}\n" in listed.stdout
    done = kubectl("hone", "list", "--namespace", namespace.name, "-o", "json")
    assert ([each["name"] for each in json.loads(done.stdout)], done.returncode, done.stderr) == (["job"], 0, "")
    done = kubectl("hone", "watch", "nothing", "--namespace", namespace.name)
    words = f"hone: namespace {namespace.name} has no FineTuneJob nothing: it has job\n"
    assert (done.returncode, done.stderr) == (CliExit.FAILED, words)
