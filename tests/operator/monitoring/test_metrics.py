"""/metrics of a known set of objects, and what the operator counts."""

import asyncio
import importlib.metadata
import math
import os
import re
from asyncio.subprocess import PIPE, STDOUT
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families
from support.cluster.memory_cluster import MemoryCluster
from support.cluster.platforms import platform_with

from hone_api.contract.report import HoneStatus, ProgressReport, TrainerStatus
from hone_dev.tools import paths, tools
from hone_operator.apiserver.errors import error_of
from hone_operator.controllers import Controllers
from hone_operator.monitoring.metrics import API_ERRORS, DAY, Metrics
from hone_operator.objects.cache import Cache
from hone_operator.progress import tls
from hone_operator.progress.store import ProgressStore
from hone_operator.queueing.routing import Key, contents_of
from hone_operator.reconcile.run.run_attempts import Attempts

pytestmark = pytest.mark.pure
GOLDEN = Path(__file__).parents[1] / "metrics.golden.txt"
EXPIRY = "hone_operator_certificate_expiry_timestamp_seconds"
OWN = ("process_", "hone_operator_build_info")


def job(name, uid, **status):
    meta = {"namespace": "ml", "name": name, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"}
    spec = {
        "model": {"uri": "hf://org/base"},
        "method": "SFT",
        "datasets": [{"name": "rows"}],
        "scheduling": {"queueName": "team"} if name == "running" else {},
    }
    return {"metadata": meta, "spec": spec, "status": status}


def condition(kind, when, status="True"):
    return {"type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": when}


RUNNING = job(
    "running",
    "u1",
    phase="Running",
    queue={"name": "team", "workload": "job-running-1", "reason": "Admitted", "evictions": 2},
    startTime="2026-01-01T00:01:00Z",
    progress={
        "step": 412,
        "totalSteps": 1000,
        "percent": 41,
        "epoch": "0.41",
        "loss": "1.204",
        "evalLoss": "nan",
        "learningRate": "0.0002",
        "gradNorm": "0.9",
        "tokensPerSecond": "74.5",
        "lastUpdatedTime": "2026-01-01T00:10:00Z",
    },
    attempts=[
        {
            "number": 1,
            "jobName": "running-1",
            "outcome": "Failed",
            "phaseSeconds": {"scheduled": 3, "image": 7, "loading": 20, "other": 2},
            "heldSecondsBeforeFirstStep": 80,
        },
        {
            "number": 2,
            "jobName": "running-2",
            "outcome": "Preempted",
            "phaseSeconds": {"scheduled": 2, "image": 1, "loading": 15, "training": 40},
            "heldSecondsBeforeFirstStep": 60,
        },
        {"number": 3, "jobName": "running-3", "outcome": "Running"},
    ],
    memory={"estimated": 9000, "terms": [{"name": "weights", "bytes": 3000}, {"name": "optimizer", "bytes": 1500}]},
    goodput={
        "ratio": "0.444",
        "scheduling": "0.944",
        "runtime": "0.471",
        "seconds": 90,
        "productiveSeconds": 40,
        "badputSeconds": {"queue": 5, "image": 8, "loading": 35, "other": 2},
    },
)
NEW = job("new", "u2", reason="DatasetNotReady", queue={"reason": "MaxActiveJobs", "position": 3})
FAILED = job(
    "failed",
    "u3",
    phase="Failed",
    reason="OutOfMemory",
    startTime="2026-01-01T00:01:00Z",
    completionTime="2026-01-01T00:31:00Z",
    attempts=[{"number": 1, "jobName": "failed-1", "outcome": "Failed"}],
    failure={"code": "OutOfMemory"},
    conditions=[condition("Finished", "2026-01-01T00:31:00Z"), condition("Failed", "2026-01-01T00:31:00Z")],
)
DATASET = {
    "metadata": {"namespace": "ml", "name": "rows", "uid": "u4"},
    "spec": {},
    "status": {
        "splits": [{"name": "train", "rows": 95}, {"name": "validation", "rows": 5}],
        "conditions": [condition("Ready", "2026-01-01T00:00:10Z")],
    },
}
BROKEN = {
    "metadata": {"namespace": "ml", "name": "broken", "uid": "u9"},
    "spec": {},
    "status": {"conditions": [{**condition("Ready", "2026-01-01T00:00:10Z", "False"), "reason": "TooManyBadRows"}]},
}
VERSION = {
    "metadata": {"namespace": "ml", "name": "tutor-v1", "uid": "u5"},
    "spec": {"modelName": "tutor", "version": 1},
    "status": {
        "conditions": [
            condition("Ready", "2026-01-01T00:00:10Z", "False") | {"reason": "ManifestMismatch"},
            condition("Signed", "2026-01-01T00:00:20Z"),
        ],
        "deliveries": [
            {"uri": "oci://registry.example.org/tutor", "state": "Delivered", "uploadedBytes": 5},
            {"uri": "oci://other.example.org/tutor", "state": "Delivered", "uploadedBytes": 2},
            {"uri": "s3://models/tutor", "state": "Failed"},
            {"uri": "forged://x", "state": "Failed"},
        ],
    },
}
MODEL = {
    "metadata": {"namespace": "ml", "name": "tutor", "uid": "u8"},
    "spec": {},
    "status": {
        "conditions": [
            condition("Ready", "2026-01-01T00:00:10Z"),
            condition("Registered", "2026-01-01T00:00:20Z", "False"),
        ],
        "aliases": [{"name": "champion", "version": 1}],
        "imports": [
            {"uri": "hf://org/adapter", "state": "Imported"},
            {"uri": "hf://org/other", "state": "Failed"},
            {"uri": "forged://x", "state": "Failed"},
        ],
    },
}
POD = {
    "metadata": {
        "namespace": "ml",
        "name": "running-3-0-abcde",
        "uid": "u6",
        "labels": {
            "hone.dev/finetunejob": "running",
            "hone.dev/attempt": "3",
            "batch.kubernetes.io/job-completion-index": "0",
        },
    },
    "spec": {"nodeName": "node-a"},
    "status": {},
}
WAITING_POD = {"metadata": {**POD["metadata"], "name": "running-3-1-abcde", "uid": "u7"}, "spec": {}, "status": {}}


@pytest.fixture
def cache():
    cache = Cache()
    for kind, body in (
        ("FineTuneJob", RUNNING),
        ("FineTuneJob", NEW),
        ("FineTuneJob", FAILED),
        ("Dataset", DATASET),
        ("Dataset", BROKEN),
        ("ModelVersion", VERSION),
        ("Model", MODEL),
        ("Pod", POD),
        ("Pod", WAITING_POD),
    ):
        cache.put(kind, body)
    return cache


async def scrape(metrics):
    async with TestClient(TestServer(metrics.application())) as client:
        response = await client.get("/metrics")
        assert response.status == 200
        return await response.text()


def value(text, name, **labels):
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


async def test_golden(cache):
    """Names, labels, help texts and values; UPDATE_GOLDEN=1 writes the file again."""
    store = ProgressStore(lambda key: None, interval=60)
    eta = TrainerStatus(estimated_remaining_seconds=480)
    store.accept("u1", ("ml", "running"), 3, ProgressReport(trainer_status=eta, hone=HoneStatus(stage="x", step=412)))
    stored = {"ml": {"runs": 7, "datasets": 3}, "gone": {"runs": 9}}
    text = await scrape(Metrics(cache, store, lambda: 2, stored))
    lines = [line for line in text.splitlines() if not re.match(rf"(# \w+ )?({'|'.join(OWN)})", line)]
    got = "\n".join(lines) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(got)
    assert got == GOLDEN.read_text()


async def test_promtool_finds_nothing_to_complain_about(cache):
    text = await scrape(Metrics(cache, ProgressStore(lambda key: None, interval=60), lambda: 0))
    process = await asyncio.create_subprocess_exec(
        tools.promtool(), "check", "metrics", stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    output, _ = await process.communicate(text.encode())
    assert (process.returncode, output.decode()) == (0, "")


async def test_the_version_is_that_of_the_distribution_and_of_the_chart():
    text = await scrape(Metrics(Cache(), ProgressStore(lambda key: None, interval=60), lambda: 0))
    version = importlib.metadata.version("hone")
    assert value(text, "hone_operator_build_info", version=version) == 1
    chart = yaml.safe_load((paths.SOURCE / "charts" / "hone" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


async def test_state_follows_the_cache(cache):
    metrics = Metrics(cache, ProgressStore(lambda key: None, interval=60), lambda: 0)
    ref = {"namespace": "ml", "finetunejob": "running"}
    text = await scrape(metrics)
    assert value(text, "hone_job_loss", **ref) == 1.204
    assert math.isnan(value(text, "hone_job_eval_loss", **ref))
    assert value(text, "hone_job_restarts_total", **ref) == 1
    assert value(text, "hone_job_preemptions_total", **ref) == 1
    assert value(text, "hone_job_phase", namespace="ml", finetunejob="new", phase="Pending") == 1
    cache.remove("FineTuneJob", RUNNING)
    assert 'finetunejob="running"' not in re.sub(r"hone_pod_info.*", "", await scrape(metrics))


@pytest.mark.parametrize(
    ("reason", "known", "cause"),
    [
        ("ErrImagePull", "ImagePullFailed", "platform"),
        ("CreateContainerConfigError", "CreateContainerFailed", "platform"),
        ("SomethingNew", "Other", ""),
        ("PVCNotFound", "PVCNotFound", "user"),
        ("QueueNotFound", "QueueNotFound", "user"),
        ("NamespaceNotEnabled", "NamespaceNotEnabled", "user"),
        ("APIServerError", "APIServerError", "platform"),
        ("DatasetNotReady", "DatasetNotReady", "data"),
        ("Materializing", "Materializing", ""),
    ],
)
async def test_a_reason_of_somebody_else_is_counted_as_one_that_alerts_know(cache, reason, known, cause):
    """DatasetNotReady was silent about an image that could not be pulled: its reason is the kubelet's."""
    not_ready = condition("Ready", "2026-01-01T00:00:10Z", "False") | {"reason": reason}
    cache.put("Dataset", BROKEN | {"status": {"conditions": [not_ready]}})
    text = await scrape(Metrics(cache, ProgressStore(lambda key: None, interval=60), lambda: 0))
    labels = {"namespace": "ml", "dataset": "broken", "reason": known, "cause": cause}
    assert value(text, "hone_dataset_reason", **labels) == 1


async def test_counters_do_not_fall_when_old_attempts_are_only_counted(cache):
    """Of more than 128 attempts, the status has the newest 128 and a number of the others."""
    outcomes = [("Failed", "Preempted")[number % 2] for number in range(132)]
    records = [{"number": n, "jobName": f"long-{n}", "outcome": outcome} for n, outcome in enumerate(outcomes, 1)]
    labels, before = {"namespace": "ml", "finetunejob": "long"}, (0.0, 0.0)
    for count in range(126, 133):
        status = Attempts(records[:count]).to_status()
        cache.put("FineTuneJob", job("long", "u9", phase="Running", **{k: v for k, v in status.items() if v}))
        text = await scrape(Metrics(cache, ProgressStore(lambda key: None, interval=60), lambda: 0))
        now = tuple(value(text, f"hone_job_{name}_total", **labels) for name in ("restarts", "preemptions"))
        assert before[0] <= now[0], count
        assert before[1] <= now[1], count
        before = now
    assert before == (66, 66)


async def test_rows_that_are_being_encoded_are_no_steps_of_the_run(cache):
    progress = {"step": 0, "percent": 46, "tokensPerSecond": "190000", "lastUpdatedTime": "2026-01-01T00:01:00Z"}
    cache.put("FineTuneJob", job("encodes", "u8", phase="Preparing", progress=progress))
    text = await scrape(Metrics(cache, ProgressStore(lambda key: None, interval=60), lambda: 0))
    assert 'hone_job_info{base_model="hf://org/base",finetunejob="encodes"' in text
    for name in ("progress_ratio", "steps", "tokens_per_second", "last_progress_timestamp_seconds"):
        assert re.search(rf'^hone_job_{name}{{finetunejob="running"', text, re.MULTILINE), name
        assert not re.search(rf'^hone_job_{name}{{finetunejob="encodes"', text, re.MULTILINE), name


async def test_an_end_is_counted_once_and_only_while_we_watch(cache):
    metrics = Metrics(cache, ProgressStore(lambda key: None, interval=60), lambda: 0)
    key = Key("FineTuneJob", "ml", "failed")
    metrics.reconciled(key, 0.01)  # it had ended before this process started
    labels = {"namespace": "ml", "result": "Failed", "reason": "OutOfMemory", "cause": "user"}
    assert value(await scrape(metrics), "hone_jobs_finished_total", **labels) is None
    now = datetime.now(UTC)
    end = (now + timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    start = (now - timedelta(seconds=595)).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {**FAILED["status"], "conditions": [condition("Finished", end)], "startTime": start}
    cache.put("FineTuneJob", {**FAILED, "status": status})
    for _ in range(3):
        metrics.reconciled(key, 0.01)
    text = await scrape(metrics)
    assert value(text, "hone_jobs_finished_total", **labels) == 1
    assert value(text, "hone_job_duration_seconds_sum", namespace="ml", method="SFT") == 600
    assert value(text, "hone_operator_reconcile_duration_seconds_count", kind="FineTuneJob") == 4


async def test_failed_reconciles_are_counted():
    metrics = Metrics(Cache(), ProgressStore(lambda key: None, interval=60), lambda: 0)
    assert value(await scrape(metrics), "hone_operator_reconcile_errors_total", kind="Dataset") == 0
    metrics.failed(Key("Dataset", "ml", "rows"), RuntimeError("no"))
    assert value(await scrape(metrics), "hone_operator_reconcile_errors_total", kind="Dataset") == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            error_of(500, b'{"message": "Internal error: failed calling webhook \\"x.example\\""}', {}, "POST"),
            "Webhook",
        ),
        (error_of(429, b"", {}, "GET"), "Throttled"),
        (error_of(503, b"", {}, "GET"), "ServerError"),
        (aiohttp.ServerDisconnectedError(), "Unreachable"),
        (TimeoutError(), "Unreachable"),
        (error_of(409, b"", {}, "PUT"), None),
        (error_of(403, b"", {}, "POST"), None),
        (RuntimeError("a bug"), None),
    ],
    ids=str,
)
async def test_errors_of_the_api_server_are_counted_by_what_is_wrong(error, reason):
    metrics = Metrics(Cache(), ProgressStore(lambda key: None, interval=60), lambda: 0)
    metrics.failed(Key("Dataset", "ml", "rows"), error)
    text = await scrape(metrics)
    counted = {each: value(text, "hone_operator_api_errors_total", reason=each) for each in API_ERRORS}
    assert counted == {each: float(each == reason) for each in API_ERRORS}


async def test_the_end_of_the_certificates_is_known():
    metrics = Metrics(Cache(), ProgressStore(lambda key: None, interval=60), lambda: 0)
    metrics.certificates(tls.renew(None, ["hone.svc"], datetime.now(UTC)).ends())
    text = await scrape(metrics)
    ends = {n: value(text, EXPIRY, certificate=n) - datetime.now(UTC).timestamp() for n in ("serving", "authority")}
    assert 80 * DAY < ends["serving"] < 400 * DAY < ends["authority"]


async def test_numbers_of_a_deleted_namespace_go(cache):
    metrics = Metrics(cache, ProgressStore(lambda key: None, interval=60), lambda: 0, since=0.0)
    for body in cache.items("FineTuneJob"):
        meta = body["metadata"]
        metrics.reconciled(Key("FineTuneJob", meta["namespace"], meta["name"]), 0.1)
    assert 'hone_jobs_finished_total{cause="user",namespace="ml"' in await scrape(metrics)
    for kind in ("FineTuneJob", "Dataset", "ModelVersion", "Model"):
        for body in cache.items(kind):
            cache.remove(kind, body)
    assert 'namespace="ml"' not in re.sub(r"hone_pod_info.*", "", await scrape(metrics))


@pytest.mark.attack("metrics")
@pytest.mark.parametrize(
    "text",
    [
        '{"at":"2026-01-01T00:00:00Z","bytes":{"datasets":1' + "0" * 400 + "}}",
        '{"at":"2026-01-01T00:00:00Z","bytes":{"\\ud800":1}}',
        '{"at":"2026-01-01T00:00:00Z","bytes":{"runs":1e999}}',
        '{"at":"2026-01-01T00:00:00Z","bytes":{"runs":-1}}',
        '{"at":"2026-01-01T00:00:00Z","bytes":[1]}',
        '{"at":"2026-01-01T00:00:00Z","bytes":{' + ",".join(f'"f{n}":1' for n in range(5000)) + "}}",
        '{"at":"2026-01-01","bytes":{"runs":1}}',
        '{"at":"9999-12-31T23:59:59Z","bytes":{"runs":1}}',
        '{"at":7,"bytes":{"runs":1}}',
        "[" * 3000,
    ],
    ids=lambda text: text[:60],
)
async def test_what_a_user_wrote_into_the_ledger_costs_nobody_the_metrics(cache: Cache, text: str) -> None:
    """Users of a namespace may edit its ConfigMaps; all read the same metrics."""
    cluster = MemoryCluster(lambda: "2026-01-02T00:00:00Z")
    meta = {"name": "hone-contents", "namespace": "ml"}
    cluster.add({"kind": "ConfigMap", "metadata": meta, "data": {"stored.json": text}})
    controllers = Controllers(cluster, cache, platform_with("trainer"), now=lambda: datetime(2026, 1, 2, tzinfo=UTC))
    await controllers.process(contents_of("ml"))
    metrics = Metrics(cache, ProgressStore(lambda key: None, interval=60), lambda: 0, controllers.stored)
    assert "hone_store_bytes{" not in await scrape(metrics)


@pytest.mark.attack("metrics")
@pytest.mark.parametrize("field", ["startTime", "completionTime"])
@pytest.mark.parametrize(
    "when", ["0000-01-01T00:00:00Z", "2026-01-01T00:00:00z", "2026-01-01T00:00:00+99:99", "2026-01-01T00:00:00x1Z"]
)
async def test_a_time_that_the_definition_takes_and_python_does_not_costs_nobody_the_metrics(
    cache: Cache, field: str, when: str
) -> None:
    """A status may be forged, or be restored from a backup."""
    cache.put("FineTuneJob", job("forged", "u9", **{field: when}))
    text = await scrape(Metrics(cache, ProgressStore(lambda key: None, interval=60), lambda: 0))
    assert 'hone_job_info{base_model="hf://org/base",finetunejob="forged"' in text
    assert 'hone_job_info{base_model="hf://org/base",finetunejob="running"' in text


@pytest.mark.parametrize("kind", ["FineTuneJob", "Dataset", "ModelVersion", "Model"])
@pytest.mark.parametrize("spec", [{}, {"model": "x", "modelName": 3, "scheduling": [], "source": 1, "lineage": "x"}])
async def test_an_object_of_another_shape_costs_nobody_the_metrics(cache: Cache, kind: str, spec: object) -> None:
    """As an installation with other definitions may hold it."""
    meta = {"namespace": "ml", "name": "odd", "uid": "u99"}
    status = {"phase": 3, "splits": {}, "progress": "x", "attempts": {"a": 1}, "conditions": 1, "aliases": 2}
    cache.put(kind, {"metadata": meta, "spec": spec, "status": status})
    text = await scrape(Metrics(cache, ProgressStore(lambda key: None, interval=60), lambda: 0))
    assert value(text, "hone_job_loss", namespace="ml", finetunejob="running") == 1.204
