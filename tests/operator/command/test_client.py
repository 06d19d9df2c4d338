"""`from hone import Client` at a real API server: the page, the notebook, what is refused; pods are played by hand."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from support.cluster.hand import conditions

from hone import (
    AsyncClient,
    Client,
    DatasetSpec,
    FineTuneJobSpec,
    HoneError,
    NotFinishedError,
    PlanRefusedError,
    RunFailedError,
    manifest,
)

pytestmark = pytest.mark.apiserver
ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "guides" / "python.md"
NOTEBOOK = ROOT / "examples" / "first-run.ipynb"
ROWS = manifest("support", DatasetSpec(source={"uri": "pvc://data/rows.jsonl"}))


def job(name="support-1", model="support", **spec):
    body = {"model": {"uri": "hf://Qwen/Qwen2.5-0.5B-Instruct"}, "datasets": [{"name": "support"}], **spec}
    return manifest(name, FineTuneJobSpec.model_validate({**body, "output": {"modelName": model}}))


@pytest.fixture
def client(namespace, apiserver, monkeypatch):
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(apiserver))
    return Client(namespace.name)


def trains(namespace, points, name="support-1"):
    curve = " ".join(f"{step}:{4 - step / 50}" for step in range(10, points + 1, 10))
    status = {"phase": "Running", "conditions": conditions("Running"), "metrics": [{"name": "loss", "curve": curve}]}
    status["progress"] = {"stage": "Training", "step": points, "totalSteps": 100}
    namespace.patch("FineTuneJob", name, {"status": status}, "status")


def succeeds(namespace, *of_version, name="support-1"):
    lineage = {"baseModel": {"uri": "hf://owner/base@main"}, "datasets": [], "job": {"name": name, "uid": "x"}}
    lineage |= {"method": "SFT", "seed": 1, "hyperParameters": {}}
    artifact = {"format": "Adapter", "uri": "pvc://hone-store/models/1/adapter", "digest": f"sha256:{'0' * 64}"}
    evaluation = {"numbers": [{"name": "loss", "base": "3.9", "tuned": "2.1"}]}
    spec = {"modelName": "support", "version": 1, "artifacts": [{**artifact, "sizeBytes": 1}], "lineage": lineage}
    namespace.create("ModelVersion", "support-v1", {**spec, "evaluation": evaluation})
    namespace.patch("ModelVersion", "support-v1", {"status": {"conditions": conditions(*of_version)}}, "status")
    ended = {"phase": "Succeeded", "conditions": conditions("Finished", "Succeeded"), "modelVersionName": "support-v1"}
    namespace.patch("FineTuneJob", name, {"status": ended}, "status")


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M)


class Played(threading.Thread):
    """Once the job is there it trains, and ends when what it said was seen."""

    def __init__(self, namespace, seen):
        super().__init__()
        self.namespace, self.seen, self.problem = namespace, seen, None

    def run(self):
        try:
            self.namespace.until(lambda: "support-1" in self.namespace.names("FineTuneJob"), "the job is there")
            for points in (20, 60):
                trains(self.namespace, points)
                self.namespace.until(lambda points=points: self.seen(points), f"{points} steps were seen")
            succeeds(self.namespace, "Ready")
        except Exception as error:
            self.problem = error


def test_the_page_runs_as_it_is(client, namespace, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "support.yaml").write_text(yaml.safe_dump_all([ROWS, job()]))
    printed = []
    names = {"print": lambda *words: printed.append(" ".join(map(str, words)))}
    played = Played(namespace, lambda points: any(f"Training {points}/100" in line for line in printed))
    played.start()
    usage, manifests, chat, notebook, asynchronous = (text.replace("my-team", namespace.name) for text in blocks())
    for text in (usage, manifests, asynchronous):
        exec(text, names)
    played.join()
    assert played.problem is None
    assert any("support-v1" in line and "2.1" in line for line in printed)
    assert printed[-1] == "support-v1"
    assert "display(run, display_id=True).update" in notebook
    with pytest.raises(HoneError, match="support-v1: its adapter has no base on a volume"):  # which was played
        exec(chat, names)


def test_the_notebook_draws_curves_that_grow(namespace, apiserver, tmp_path) -> None:
    config = yaml.safe_load(apiserver.read_text())
    config["contexts"][0]["context"]["namespace"] = namespace.name
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    drawn = []

    class Recorded(NotebookClient):
        def process_message(self, msg, cell, cell_index):
            drawn.append(msg["content"].get("data", {}).get("text/html", ""))
            return super().process_message(msg, cell, cell_index)

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    (pods,) = [cell for cell in notebook.cells if "pods" in cell.metadata.get("tags", ())]
    notebook.cells.remove(pods)
    played = Played(namespace, lambda points: any(f"loss {4 - points / 50:.4g}" in html for html in drawn))
    played.start()
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "config"), "IPYTHONDIR": str(tmp_path)}
    Recorded(notebook, timeout=None, kernel_name="python3").execute(env=environment)
    played.join()
    assert played.problem is None
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    assert "support-v1" in str(outputs[-1])
    assert "loss" in str(outputs[-2]["data"]["text/plain"]), "the data frame"
    assert "support-1 has succeeded" in drawn[-1] or any("has succeeded" in html for html in drawn)
    assert "chat.ask(" in pods.source


def test_nothing_is_applied_if_an_object_is_refused_or_a_job_does_not_fit(client, namespace) -> None:
    wrong = job("wrong")
    wrong["spec"]["colour"] = "red"
    with pytest.raises(PlanRefusedError, match=r"^nothing was applied: FineTuneJob wrong: .*colour") as refused:
        client.run(ROWS, wrong)
    assert [each.action for each in refused.value.plan.objects] == ["create", "refused"]
    for bodies, count in (([ROWS], 0), ([job(), job("other")], 2)):
        with pytest.raises(HoneError, match=f"takes one FineTuneJob, not {count}: use start. Nothing was applied"):
            client.run(*bodies)
    assert namespace.names("Dataset") == namespace.names("FineTuneJob") == []
    assert [run.name for run in client.start(ROWS, job(), job("other"))] == ["support-1", "other"]


def test_a_job_that_exceeds_its_budget_is_refused_with_the_reason(client, namespace) -> None:
    counted = {"splits": [{"name": "train", "rows": 900}], "tokens": {"mean": 100, "max": 400}}
    rows = {**ROWS, "metadata": {"name": "support", "annotations": {"hone.dev/checked": json.dumps(counted)}}}
    dear = job(budget={"gpuHours": "0.00001"}, resources={"gpusPerNode": 1, "gpuProducts": ["NVIDIA-L4"]})
    with pytest.raises(PlanRefusedError, match=r"applied: support-1: its plan exceeds the budget of 1e-05 GPU-hours$"):
        client.run(rows, dear)
    assert namespace.names("FineTuneJob") == []


def test_a_result_is_a_version_or_says_why_there_is_none(client, namespace) -> None:
    run = client.run(ROWS, job())
    assert (run.spec.output.model_name, run.status.phase) == ("support", None)
    with pytest.raises(NotFinishedError, match="support-1 is not over"):
        run.result()
    failure = {"failure": {"code": "OutOfMemory", "message": "rank 0", "hint": "Ask for more."}}
    body = {"status": {"phase": "Failed", "conditions": conditions("Finished", "Failed"), **failure}}
    namespace.patch("FineTuneJob", "support-1", body, "status")
    with pytest.raises(RunFailedError, match=r"OutOfMemory: rank 0\. Ask for more"):
        run.wait().result()
    with pytest.raises(HoneError, match="has nothing to stop or continue"):
        run.suspend()
    assert client.run(job("second")).suspend().spec.suspend is True
    succeeds(namespace, "Stalled", name="second")
    with pytest.raises(RunFailedError, match="support-v1 cannot be used"):
        client.job("second").wait().result()
    assert [node.name for node in client.models()] == ["support"]
    assert client.version("support:1").spec.evaluation.numbers[0].tuned == "2.1"
    assert client.compare("support-1", "second")["run"] == {"state": ["Failed", "Succeeded"]}


def test_runs_are_cancelled_and_their_curves_are_frames(client, namespace) -> None:
    run = client.run(ROWS, job())
    trains(namespace, 60)
    frame = run.refresh().frame()
    assert list(frame.index) == [10, 20, 30, 40, 50, 60]
    assert frame["loss"][60] == pytest.approx(2.8)
    assert "<svg" in run._repr_html_()
    run.cancel()
    namespace.until(lambda: namespace.names("FineTuneJob") == [], "the job is gone")
    with pytest.raises(HoneError, match="has no FineTuneJob support-1"):
        run.refresh()


def test_a_data_frame_without_pandas_says_what_to_install(client, monkeypatch) -> None:
    run = client.run(ROWS, job())
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(HoneError, match="pip install pandas"):
        run.frame()


def test_an_asynchronous_wait_leaves_the_loop_free_and_can_be_cancelled(namespace, client) -> None:
    client.run(ROWS, job())
    looks = []

    async def wait() -> None:
        run, again = await AsyncClient(namespace.name).job("support-1"), asyncio.Event()

        def looked(run):
            looks.append(run)
            if len(looks) > 1:
                again.set()

        waiting = asyncio.create_task(run.wait(looked, seconds=0.1))
        await again.wait()  # the loop turns meanwhile
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(wait())
    assert {each.name for each in looks} == {"support-1"}
    before = len(looks)
    time.sleep(0.3)
    assert len(looks) == before


def test_the_client_needs_only_the_packages_of_the_command(namespace, client) -> None:
    program = (
        "import sys; import hone; hone.Client;"
        "print([name for name in ('torch', 'transformers', 'pandas', 'aiohttp', 'IPython') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("[]\n", "")
