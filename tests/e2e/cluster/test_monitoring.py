"""A real Prometheus finds the operator and a pod that trains, and answers with the loss."""

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.chart_documents import IMAGES
from support.cluster.live import ROWS, config_map, dataset, job, lines

from hone_dev.tools import paths, tools

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("hone")]
RULES = paths.SOURCE / "charts" / "hone" / "files" / "rules" / "hone.yaml"
HANG = 40 * 60.0  # seconds; a guard against hanging on a busy machine, not an expectation


SCRAPE = {
    "rule_files": [str(RULES)],
    "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
    "scrape_configs": [
        {"job_name": "hone", "honor_labels": True, "file_sd_configs": [{"files": ["*.json"], "refresh_interval": "1s"}]}
    ],
}


def monitors() -> list[dict[str, Any]]:
    """The chart's PodMonitors."""
    values = {"metrics": {"renderMode": "alwaysRender", "podMonitor": {"enabled": True}}}
    command = [tools.helm(), "template", "hone", paths.SOURCE / "charts" / "hone", *IMAGES, "--values", "-"]
    text = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=True).stdout
    return [d["spec"] for d in yaml.safe_load_all(text) if d and d["kind"] == "PodMonitor"]


def targets(kubectl: Any) -> list[dict[str, Any]]:
    """Running pods that the PodMonitors select, as the Prometheus operator would find them.

    Debian's Prometheus is built without discovery in Kubernetes.
    """
    found = []
    for spec in monitors():
        (endpoint,) = spec["podMetricsEndpoints"]
        selector = ",".join(f"{key}={value}" for key, value in spec["selector"]["matchLabels"].items())
        for pod in kubectl.get("pods", "--all-namespaces", f"--selector={selector}")["items"]:
            ports = [p for c in pod["spec"]["containers"] for p in c.get("ports", ()) if p["name"] == endpoint["port"]]
            if pod["status"]["phase"] == "Running" and ports:
                address = f"{pod['status']['podIP']}:{ports[0]['containerPort']}"
                found.append({"targets": [address], "labels": {"namespace": pod["metadata"]["namespace"]}})
    return found


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str
    folder: Path
    """Of its configuration and of the files that name its targets."""

    def scrape(self, kubectl: Any) -> None:
        """Scrape what the PodMonitors select now."""
        new = self.folder / "targets.new"
        new.write_text(json.dumps(targets(kubectl)))
        new.rename(self.folder / "targets.json")

    def get(self, path: str, **query: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=600) as answer:
            return json.load(answer)["data"]

    def value(self, expression: str) -> float | None:
        """The only sample of an expression, or None."""
        result = self.get("query", query=expression)["result"]
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """Debian's Prometheus on loopback."""
    config = tmp_path / "prometheus.yaml"
    config.write_text(yaml.safe_dump(SCRAPE))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        tools.prometheus(),
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = Prometheus(f"http://127.0.0.1:{port}", tmp_path)
    try:
        until("Prometheus is ready", lambda: process.poll() is not None or server.get("status/runtimeinfo"))
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield server
    finally:
        process.terminate()
        process.wait()


def until(what: str, check: Any) -> Any:
    """The first true value of `check`."""
    deadline = time.monotonic() + HANG
    while True:
        try:
            if value := check():
                return value
        except OSError:  # it is starting
            pass
        assert time.monotonic() < deadline, f"never came about: {what}"
        time.sleep(1)


@pytest.mark.early
def test_prometheus_returns_the_loss_of_a_running_job(kubectl, prometheus, tiny) -> None:
    name = "run"
    kubectl.apply(config_map("files", {"good.jsonl": lines(ROWS)}), dataset("good", "good.jsonl"))
    kubectl.apply(job(name, {"uri": tiny}, training={"maxSteps": 1_000_000, "batchSize": 2}))
    of_job = f'{{namespace="{kubectl.namespace}",finetunejob="{name}"}}'

    def sample(expression: str) -> float | None:
        prometheus.scrape(kubectl)
        return prometheus.value(expression)

    # The operator reports what the status says, the pod what the trainer knows.
    loss = until("the operator's loss", lambda: sample(f"hone_job_loss{of_job}"))
    own = until("the trainer's loss", lambda: sample(f"hone_trainer_loss{of_job}"))
    assert 0 < loss < 20
    assert 0 < own < 20
    assert prometheus.value(f'hone_job_phase{{phase="Running",{of_job[1:]}') == 1
    assert prometheus.value(f"hone_job_steps{of_job}") >= 1
    assert prometheus.value(f"hone_pod_info{of_job}") == 1
    status = kubectl.get("ftj", name)["status"]
    assert status["progress"]["totalSteps"] == prometheus.value(f"hone_job_steps_target{of_job}")

    # The rules are loaded and can be evaluated; nothing is wrong, so that nothing fires for this job.
    groups = prometheus.get("rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    firing = prometheus.get("query", query="ALERTS")["result"]
    assert not [a for a in firing if a["metric"].get("namespace") == kubectl.namespace]
    assert "HoneOperatorDown" not in {a["metric"]["alertname"] for a in firing}

    def all_answer() -> bool:  # a pod that has ended is down until the next list of targets
        prometheus.scrape(kubectl)
        return {t["health"] for t in prometheus.get("targets", state="active")["activeTargets"]} == {"up"}

    until("every pod that the monitors select answers", all_answer)
