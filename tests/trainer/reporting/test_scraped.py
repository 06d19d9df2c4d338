"""A real Prometheus scrapes a real operator and a real run: which expressions of the dashboards return data.

The API server, the operator with its progress server, and the run are real; a hand plays Job controller and kubelet.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from support.cluster.hand import Namespace, fine_tune_job
from support.cluster.kube import connect
from support.cluster.operator_process import Operator, free_ports

from hone_api.contract.report import AUDIENCE, CA_ENV, TOKEN_ENV, URL_ENV
from hone_dev.generate import dashboard_pictures, dashboards
from hone_dev.generate.dashboard_story import Body, Server, serving

pytestmark = [pytest.mark.trainer, pytest.mark.long]
SILENT = {
    "no GPU": (
        "GPUs held, by team",
        "GPUs held",
        "Costs of an hour",
        "Costs in the chosen time",
        "GPU-hours in the chosen time",
        "Use of the hardware",
    ),
    "no DCGM exporter": ("Activity of held GPUs", "Activity of its GPUs", "Memory of its GPUs"),
    "no kubelet, so no cAdvisor and no node": ("Memory of its pods", "Ranks"),
    "no Kueue and no line": ("Place in the line", "Evictions", "Interruptions", "Eviction", "Preemption"),
    "one rank": ("Slowest rank", "Which rank is slowest"),
    "no failed job, alert or refused report": (
        "Firing alerts",
        "Failed, by who can fix it",
        "Failed, by reason",
        "Refused reports",
        "Errors",
    ),
    "no Model, server, delivery or import": (
        "Aliases",
        "Served",
        "Deliveries, by state",
        "Uploaded",
        "Imports, by state",
    ),
    "the store is measured once a day": ("Stores, by namespace", "Stores, by folder"),
    "no Dataset that failed": ("Datasets that are not Ready",),
    "samples of several minutes": ("Restart",),
    "no stage that counts rows for seconds": ("Rows per second", "Time left", "Tokens per second"),
}
"""Panels and annotations with an expression that this run cannot answer."""


def environment(space: Namespace, pod: str, server: str, folder: Path) -> dict[str, str]:
    """What the kubelet gives the pod in order to report."""
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": space.get("Pod", pod)["metadata"]["uid"]}
    body = {"spec": {"audiences": [AUDIENCE], "boundObjectRef": bound}}
    token = space.kube.call("POST", f"/api/v1/namespaces/{space.name}/serviceaccounts/default/token", body)
    (folder / "token").write_text(token["status"]["token"])
    return {
        URL_ENV: f"{server}/apis/hone.dev/v1alpha1/namespaces/{space.name}/finetunejobs/run/status",
        TOKEN_ENV: str(folder / "token"),
        CA_ENV: str(folder / "ca.crt"),
    }


def scraped(name: str, port: int, keep: str, **labels: str) -> Body:
    """What the chart's monitor becomes: see charts/hone/templates/monitoring.yaml."""
    kept = [{"source_labels": ["__name__"], "regex": keep, "action": "keep"}]
    target = {"targets": [f"127.0.0.1:{port}"], "labels": {"cluster": "east", **labels}}
    return {"job_name": name, "static_configs": [target], "metric_relabel_configs": kept}


def returns_data(server: Server, expr: str, space: Namespace) -> bool:
    chosen = {"$__rate_interval": "20s", "$__range": "10m", "$finetunejob": "run", "$namespace": space.name}
    for variable, value in {**chosen, "$cluster": ".*", "$queue": ".*"}.items():
        expr = expr.replace(variable, value)
    now = time.time()
    return bool(server.get("query_range", query=expr, start=now - 120, end=now, step=1)["result"])


def test_every_expression_over_a_run_that_was_scraped(
    apiserver: Path, runs: Any, make_plan: Any, tmp_path: Path
) -> None:
    (tmp_path / "kube").mkdir()
    space = Namespace(connect(apiserver, tmp_path / "kube"), f"t-{uuid.uuid4().hex[:8]}")
    named = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name}}
    space.kube.call("POST", "/api/v1/namespaces", named)
    space.create("ServiceAccount", "default")
    for claim in ("hone-store", "models", "data"):
        space.claim(claim)
    metrics, progress, of_run = free_ports(3)
    system = f"{space.name}-system"
    space.kube.call("POST", "/api/v1/namespaces", {**named, "metadata": {"name": system}})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hone-operator-tls"}}
    space.kube.call("POST", f"/api/v1/namespaces/{system}/secrets", secret)
    settings = {
        "HONE_NAMESPACE": system,
        "HONE_WATCH_NAMESPACES": json.dumps([space.name]),
        "HONE_PROGRESS__SERVICE_HOST": "localhost",
        "HONE_PROGRESS__PORT": str(progress),
        "HONE_PROGRESS__SERVICE_PORT": str(progress),
        "HONE_PROGRESS__STATUS_INTERVAL_SECONDS": "1",
    }
    operator = Operator(apiserver, tmp_path, settings, forked=True)
    operator.env["HONE_PORTS__METRICS"] = str(metrics)
    operator.start()
    targets = [
        scraped("hone", metrics, ".*"),
        scraped("trainer", of_run, "hone_trainer_.*", namespace=space.name, pod="run-2-0", container="trainer"),
    ]
    try:
        space.until(operator.ready, "ready")
        with serving(tmp_path, tmp_path / "data", [dashboard_pictures.RULES], targets) as server:
            answers = lived(space, operator, server, runs, make_plan(metricsPort=of_run), progress, tmp_path)
    finally:
        operator.kill()
    expected = {title for titles in SILENT.values() for title in titles}
    titles = {title for _, title, _ in answers}
    assert expected <= titles
    assert [key for key, found in answers.items() if not found and key[1] not in expected] == []
    assert sum(answers.values()) > 60


def lived(
    space: Namespace, operator: Operator, server: Server, runs: Any, plan: Any, progress: int, folder: Path
) -> dict[tuple[str, str, str], bool]:
    """A failed attempt, then the real run to its end, its ModelVersion, and a job that is refused; (board, panel,
    expression) with whether it returned data."""
    space.dataset()
    space.create("FineTuneJob", "run", fine_tune_job(resources={"nodes": 1}, restarts={"maxRestarts": 3}))
    space.create("FineTuneJob", "lost", fine_tune_job(datasets=[{"name": "nothing"}]))
    space.until(lambda: space.get("Job", "run-1"), "attempt 1")
    space.fail("run-1", 137, terminated={"reason": "Error"})
    space.until(lambda: space.get("Job", "run-2"), "attempt 2")
    [pod] = space.start_pods("run-2")
    secret = f"/api/v1/namespaces/{operator.env['HONE_NAMESPACE']}/secrets/hone-operator-tls"
    (folder / "ca.crt").write_bytes(base64.b64decode(space.kube.call("GET", secret)["data"]["ca.crt"]))
    process = runs.start(plan, **environment(space, pod, f"https://localhost:{progress}", folder))
    outcome = runs.wait(plan, process)
    space.end_pod(pod, 0, json.loads(outcome.model_dump_json(by_alias=True, exclude_none=True)))
    space.end_job("run-2", "Complete")
    verify = space.until(lambda: [n for n in space.names("Job") if "verify" in n], "a verify Job")[0]
    space.succeed(verify, {"kind": "Verify", "files": 3, "sizeBytes": 7})
    space.until(lambda: space.condition("ModelVersion", "tutor-v1", "Ready").get("status") == "True", "Ready")
    time.sleep(10)  # of scrapes
    answers = {}
    for file, board in dashboards.boards().items():
        asked = [(p.title, q.expr) for panels in board.rows.values() for p in panels for q in p.queries]
        for title, expr in [*asked, *((name, expr) for name, (expr, _) in board.annotations.items())]:
            answers[file.stem, title, expr] = returns_data(server, expr, space)
    return answers
