"""What people do with runs every day, typed as commands, on real pods: watch, stop, go on, compare, hand on, look."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from support.cluster.live import HANG, ROWS, config_map, dataset, job, lines, reason_becomes, secret, training, wait
from support.pages.browser import chromium
from support.pages.screen import Screen

from hone_cli.errors import CliExit

pytestmark = [pytest.mark.e2e, pytest.mark.early, pytest.mark.usefixtures("hone")]
TOKEN = "hf_of_the_bundle_0123456789abcdefgh"
RATES = {"slow": "0.0001", "fast": "0.01"}
"""Two runs that differ in the learning rate alone."""
Hone = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def hone_in(new_namespace, tiny, hone, tmp_path_factory) -> Iterator[tuple[Any, Hone]]:
    """A namespace, and `hone` in it; two short runs and an endless one of two pods were submitted."""
    folder = tmp_path_factory.mktemp("every-day")
    with new_namespace("every-day") as kubectl:

        def run(*words: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
            program = [sys.executable, "-m", "hone_cli", *map(str, words), "--namespace", kubectl.namespace]
            env = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)}
            done = subprocess.run(program, env=env, capture_output=True, text=True, cwd=folder)
            assert done.returncode == code, done.stdout + done.stderr
            return done

        kubectl.apply(config_map("files", {"good.jsonl": lines(ROWS)}), secret("hone-hub", "HF_TOKEN", TOKEN))
        model = {"uri": tiny, "secretName": "hone-hub"}
        bodies = [dataset("good", "good.jsonl")]
        bodies += [job(name, model, training={"maxSteps": 2, "learningRate": rate}) for name, rate in RATES.items()]
        two = {"cpu": "100m", "memory": "2Gi", "nodes": 2}
        bodies.append(job("long", model, training={"maxSteps": 1_000_000, "batchSize": 2}, resources=two))
        (folder / "runs.yaml").write_text(yaml.safe_dump_all(bodies))
        assert "Watch it: hone watch long" in run("run", "runs.yaml", "--yes", "--detach").stdout
        yield kubectl, run


def _step(kubectl: Any) -> int:
    progress = kubectl.get("ftj", "long")["status"].get("progress") or {}
    return int(progress.get("step") or 0)


def test_a_run_is_watched_suspended_resumed_and_cancelled(hone_in, terminal: Callable[..., Screen]) -> None:
    kubectl, hone = hone_in
    narrow = terminal("watch", "long", "-n", kubectl.namespace, columns=40, KUBECONFIG=str(kubectl.kubeconfig))
    shown = narrow.until(lambda text: bool(re.search(r"Training \d+/1000000(.|\n)*loss +\d", text)))
    assert re.search("\n━+ *\n", shown), "the bar has a line of its own"
    narrow.press("\x03")
    assert narrow.end() == 130
    assert "long goes on. hone watch long" in narrow.text

    assert hone("logs", "long", "--rank", "1", "--tail", "0").stdout.strip()
    assert "site-packages" not in hone("logs", "long", "--tail", "0").stdout, "a library says something about itself"
    assert hone("logs", "long", "--rank", "2", code=1).stderr == "hone: attempt 1 of long has no pod 2: it has 0, 1\n"

    hone("suspend", "long")
    wait(lambda: not training(kubectl, "pods", "long"), lambda: "its pods still run")
    stopped = _step(kubectl)
    assert stopped > 0
    row = next(each for each in json.loads(hone("list", "-o", "json").stdout) if each["name"] == "long")
    assert row["state"] == "Suspended SuspendedByUser"
    hone("resume", "long")
    resumed = wait(lambda: _resumed(kubectl, hone), lambda: f"it did not resume: {training(kubectl, 'pods', 'long')}")
    assert resumed >= stopped, "the status is written once an interval, and never ahead of the checkpoint at the stop"
    wait(lambda: _step(kubectl) > resumed, lambda: f"no step after {resumed}: {kubectl.get('ftj', 'long')['status']}")

    assert hone("cancel", "long", "--yes").stdout == "long is cancelled.\n"
    wait(lambda: not training(kubectl, "pods", "long"), lambda: "its pods still run")
    assert "has no FineTuneJob long: it has fast, slow" in hone("watch", "long", code=1).stderr


def _resumed(kubectl: Any, hone: Hone) -> int:
    """Step of the checkpoint from which the pods that run now resumed; 0 until their log says so."""
    pods = training(kubectl, "pods", "long")
    if not pods or any(pod["status"]["phase"] != "Running" for pod in pods):
        return 0
    found = re.search(r"resuming from step-(\d+)", hone("logs", "long", "--tail", "0").stdout)
    return int(found[1]) if found else 0


def test_runs_that_ended_are_compared_and_handed_on(hone_in, tmp_path: Path) -> None:
    kubectl, hone = hone_in
    for name in RATES:
        reason_becomes(kubectl, "ftj", name, "Finished", "Succeeded")
    compared = json.loads(hone("compare", *RATES, "-o", "json").stdout)
    assert compared["settings that differ"] == {
        "output.modelName": [*RATES],
        "training.learningRate": [*RATES.values()],
    }
    assert all(cells[0] != cells[1] for cells in compared["curves"].values() if "loss" in cells)
    assert compared["held-out rows"]

    version = kubectl.get("ftj", "fast")["status"]["modelVersionName"]
    reason_becomes(kubectl, "mv", version, "Ready", "Verified")
    page, archive = tmp_path / "report.html", tmp_path / "slow.tar.gz"
    assert "every byte is as recorded" in hone("report", "fast", "-o", page).stdout
    assert "<title>Model fast" in page.read_text()

    hone("bundle", "slow", "-o", archive)
    with tarfile.open(archive) as packed:
        files = {each.name: packed.extractfile(each).read() for each in packed}
    (log,) = (text for name, text in files.items() if name.endswith(".trainer.log"))
    assert b"Training 2/2" in log
    assert "slow/objects/FineTuneJob-slow.json" in files
    assert TOKEN.encode() not in b"".join(files.values())

    checks = json.loads(hone("doctor", "-o", "json").stdout)
    assert {each["name"] for each in checks if each["state"] not in ("ok", "warning")} == set()


def test_a_log_that_the_node_has_removed_is_said_to_be_gone(hone_in, images) -> None:
    """The kubelet evicts the pod, and answers with an error text and status 200."""
    kubectl, hone = hone_in
    labels = {"hone.dev/finetunejob": "slow", "hone.dev/component": "training", "hone.dev/attempt": "9"}
    fills = "head -c 40000000 /dev/zero > /tmp/filled; sleep 900"
    container = {
        "name": "trainer",
        "image": images["trainer"],
        "command": ["sh", "-c", fills],
        "resources": {"requests": {"cpu": "10m"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    user = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    small = [{"name": "tmp", "emptyDir": {"sizeLimit": "10Mi"}}]
    spec = {"restartPolicy": "Never", "securityContext": user, "containers": [container], "volumes": small}
    metadata = {"name": "evicted", "labels": labels}
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    wait(
        lambda: kubectl.get("pod", "evicted")["status"].get("reason") == "Evicted",
        lambda: kubectl.get("pod", "evicted"),
    )
    words = r'hone: pod evicted has ended \(Evicted: .*exceeds the limit "10Mi".*\), and its node has removed the log\n'
    assert re.fullmatch(words, hone("logs", "slow", code=CliExit.FAILED).stderr)
    kubectl("delete", "pod", "evicted", "--wait=false")


def test_the_page_shows_the_runs_in_a_browser(hone_in) -> None:
    kubectl, _ = hone_in
    program = [sys.executable, "-m", "hone_cli", "ui", "--namespace", kubectl.namespace]
    env = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig), "PYTHONUNBUFFERED": "1"}
    reason_becomes(kubectl, "ftj", "fast", "Finished", "Succeeded")
    with subprocess.Popen(program, env=env, stdout=subprocess.PIPE, text=True) as served, chromium() as browser:
        assert served.stdout
        browser.get(served.stdout.readline().removeprefix("Look at ").strip())

        def shows(*words: str) -> None:
            def are_there(page: Any) -> bool:
                return all(word in page.find_element(By.TAG_NAME, "main").text for word in words)

            WebDriverWait(browser, HANG).until(are_there)

        shows("fast", "slow", "Succeeded")
        browser.find_element(By.LINK_TEXT, "fast").click()
        shows("fast", "loss", kubectl.get("ftj", "fast")["status"]["modelVersionName"])
        served.send_signal(signal.SIGINT)
        assert served.wait(HANG) == 0
