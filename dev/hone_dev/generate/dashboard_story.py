"""Six hours of a small fleet, as the operator's own collector and the trainer's own gauges expose them.

The objects are made up; names, labels and values of the series are those of the real `/metrics`. Prometheus reads them
as blocks, evaluates the chart's rules over them, and answers.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import yaml
from prometheus_client.parser import text_string_to_metric_families

from hone_api.contract.status_json import AttemptJson
from hone_dev.tools import tools
from hone_operator.monitoring.metrics import Metrics
from hone_operator.objects.cache import Cache
from hone_operator.progress.refusals import RefusalCounter
from hone_operator.progress.store import ProgressStore
from hone_operator.queueing.routing import Key
from hone_operator.reconcile.run import goodput
from hone_trainer.reporting.live import Progress
from hone_trainer.reporting.prometheus import PrometheusReporter

HOURS, STEP = 6, 120
BLOCK = 7200
"""Seconds of a block of Prometheus."""
Body = dict[str, Any]
PRICES = {"": 2.5, "NVIDIA-H100-80GB-HBM3": 4.0}


@dataclass(frozen=True)
class Job:
    """A FineTuneJob by the minutes at which things happen to it."""

    namespace: str
    name: str
    queue: str
    gpus: int
    created: int
    starts: int
    ends: int
    reason: str = "Succeeded"
    steps: int = 600
    product: str = ""
    waits: str = "Queued"
    interrupted: int | None = None
    evictions: int = 0
    line: int | None = None


JOBS = (
    Job(
        "support",
        "support-bot-7",
        "team-a",
        8,
        20,
        45,
        900,
        steps=4000,
        product="NVIDIA-H100-80GB-HBM3",
        interrupted=190,
        line=1,
    ),
    Job("support", "triage-2", "team-a", 4, 60, 70, 200),
    Job("support", "triage-3", "team-a", 4, 150, 205, 330, evictions=2),
    Job("support", "tone-1", "team-a", 2, 210, 215, 240, "InvalidValue"),
    Job("search", "ranker-4", "team-b", 4, 5, 10, 130, product="NVIDIA-H100-80GB-HBM3"),
    Job("search", "ranker-5", "team-b", 4, 100, 135, 310, "StorageError", interrupted=180),
    Job("search", "summaries-1", "team-b", 2, 250, 999, 999),
    Job("law", "clauses-1", "", 1, 90, 95, 290, "TooManyBadRows"),
    Job("law", "clauses-2", "", 1, 300, 999, 999, waits="Preparing"),
    Job("law", "clauses-3", "", 1, 310, 999, 999, line=2),
)
WATCHED = JOBS[0]
"""The job of the second dashboard."""


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, at: float, reason: str = "Ready", *, true: bool = True) -> Body:
    return {"type": kind, "status": str(true), "reason": reason, "message": "", "lastTransitionTime": stamp(at)}


def numbers(job: Job, minute: int) -> dict[str, float]:
    """What the trainer measures."""
    done = min(1.0, max(0, minute - job.starts - 6) / max(1, job.ends - job.starts))
    step = int(job.steps * done)
    wave = math.sin(minute / 7) / 30
    return {
        "step": step,
        "total_steps": job.steps,
        "epoch": 3 * done,
        "loss": 2.4 * math.exp(-3 * done) + 0.7 + wave,
        "eval_loss": 2.3 * math.exp(-2.6 * done) + 0.85,
        "learning_rate": 2e-4 * min(1, 20 * done) * (1 - done),
        "grad_norm": 0.8 + math.exp(-5 * done) + abs(wave) * 4,
        "loss_step": step,
        "eval_step": step // 50 * 50,
        "checkpoint_step": step // 100 * 100,
        "checkpoint_bytes": 1.4e9 + step // 100 * 2e7,
        "tokens_per_second": 41_000 * job.gpus / 8 * (1 + wave),
        "useful_tokens": 0.93 + wave / 2,
        "gpu_memory_bytes": 61_000_000_000 + min(step, 40) * 50_000_000,
        "mfu": 0.38 + wave / 3,
        "rows": (minute * 11) % 400,
        "total_rows": 400,
        "rows_per_second": 6 + wave * 10,
        "slowest_rank": 3,
        "slowest_rank_ratio": 1.05 + abs(wave),
    }


def body_of(job: Job, zero: float, minute: int) -> Body:
    """The object as the operator has it at a minute."""
    meta = {
        "namespace": job.namespace,
        "name": job.name,
        "uid": job.name,
        "creationTimestamp": stamp(zero + 60 * job.created),
    }
    resources = {"gpusPerNode": job.gpus, **({"gpuProducts": [job.product]} if job.product else {})}
    spec = {
        "model": {"uri": "hf://org/base"},
        "method": "SFT",
        "scheduling": {"queueName": job.queue},
        "resources": resources,
    }
    status: Body = {"phase": job.waits, "reason": "DatasetNotReady" if job.waits == "Preparing" else "Queued"}
    evictions = job.evictions * (minute > (job.created + job.starts) / 2)
    status["queue"] = {"workload": job.name, "evictions": evictions} if job.queue else {}
    if job.line and minute < job.starts:
        status["queue"]["position"] = job.line
    if minute >= job.starts:
        status |= _started(job, spec, zero, minute)
    return {"metadata": meta, "spec": spec, "status": status}


def _started(job: Job, spec: Body, zero: float, minute: int) -> Body:
    now = min(minute, job.ends)
    phases = {"queued": (job.starts - job.created) * 60, "scheduled": 20, "image": 40, "loading": 200, "firstStep": 15}
    left = (now - job.starts) * 60 - 275
    shares = {"evaluatingBase": 0.06, "training": 0.78, "evaluating": 0.06, "saving": 0.04, "other": 0.06}
    phases |= {name: int(share * max(0, left)) for name, share in shares.items()}
    attempt = {"nodes": 1, "heldSecondsBeforeFirstStep": 275 * job.gpus, "startTime": stamp(zero + 60 * job.starts)}
    attempts = [{**attempt, "number": 1, "phaseSeconds": phases, "outcome": "Running"}]
    if job.interrupted and now >= job.interrupted:
        attempts[0] |= {"outcome": "Preempted" if job.reason == "Succeeded" else "Failed"}
        again = {
            "scheduled": 15,
            "image": 5,
            "loading": 180,
            "firstStep": 12,
            "training": 60 * (now - job.interrupted) // 2,
        }
        attempts.append({**attempt, "number": 2, "phaseSeconds": again, "outcome": "Running"})
    measured = {n: value if isinstance(value, int) else str(value) for n, value in _camel(numbers(job, now)).items()}
    status: Body = {
        "phase": "Running",
        "reason": "Running",
        "startTime": stamp(zero + 60 * job.starts),
        "progress": {**measured, "lastUpdatedTime": stamp(zero + 60 * now - 20)},
        "attempts": attempts,
        "goodput": _goodput(attempts),
        "conditions": [condition("Admitted", zero + 60 * job.starts)],
        "memory": {"terms": [{"name": "weights", "bytes": 48_000_000_000}, {"name": "other", "bytes": 17_000_000_000}]},
    }
    if minute >= job.ends:
        ok = job.reason == "Succeeded"
        attempts[-1]["outcome"] = "Succeeded" if ok else "Failed"
        ended = zero + 60 * job.ends
        status |= {"phase": "Succeeded" if ok else "Failed", "completionTime": stamp(ended), "reason": job.reason}
        status["conditions"] += [condition("Finished", ended), condition("Succeeded", ended, true=ok)]
        if not ok:
            status["failure"] = {"code": job.reason}
    return status


def _camel(values: Mapping[str, float]) -> dict[str, float]:
    heads = {name: name.split("_") for name in values}
    return {head[0] + "".join(map(str.title, head[1:])): values[name] for name, head in heads.items()}


def _goodput(attempts: list[Body]) -> Body:
    kinds: dict[str, int] = {}
    for spent in goodput.spent(cast("list[AttemptJson]", attempts)):
        for kind, seconds in spent.items():
            kinds[kind] = kinds.get(kind, 0) + seconds
    productive = kinds.pop(goodput.PRODUCTIVE)
    total = productive + sum(kinds.values())
    return {"ratio": f"{productive / max(1, total):.3f}", "badputSeconds": {k: s for k, s in kinds.items() if s}}


def others(zero: float, minute: int) -> Iterator[tuple[str, Body]]:
    """Datasets, ModelVersions, Models and pods."""
    ready = [("support", "tickets", True), ("search", "clicks", True), ("law", "contracts", minute < 240)]
    for namespace, name, good in ready:
        status = {"conditions": [condition("Ready", zero, "Ready" if good else "TooManyBadRows", true=good)]}
        status["splits"] = [
            {"name": "train", "rows": 95_000 + len(name) * minute},
            {"name": "validation", "rows": 5_000},
        ]
        yield "Dataset", {"metadata": {"namespace": namespace, "name": name, "uid": name}, "spec": {}, "status": status}
    for version in (1, 2):
        name, bad = f"triage-v{version}", version == 2 and minute > 300
        conditions = [condition("Ready", zero, true=not bad), condition("Signed", zero)]
        deliveries = [
            {"uri": "oci://registry.example.org/triage", "state": "Delivered", "uploadedBytes": 10**8 * version}
        ]
        deliveries.append({"uri": "s3://models/triage", "state": "Delivering" if minute < 200 else "Failed"})
        meta = {"namespace": "support", "name": name, "uid": name}
        spec = {"modelName": "triage", "version": version}
        yield (
            "ModelVersion",
            {"metadata": meta, "spec": spec, "status": {"conditions": conditions, "deliveries": deliveries}},
        )
    conditions = [condition("Ready", zero), condition("Registered", zero, "Failed", true=minute < 250)]
    imports = [{"uri": "hf://org/adapter", "state": "Importing" if minute < 60 else "Imported"}]
    status = {
        "conditions": conditions,
        "aliases": [{"name": "champion", "version": 1 + (minute > 220)}],
        "imports": imports,
    }
    yield (
        "Model",
        {"metadata": {"namespace": "support", "name": "triage", "uid": "triage"}, "spec": {}, "status": status},
    )
    for job in JOBS:
        if job.starts <= minute < job.ends:
            labels = {
                "hone.dev/finetunejob": job.name,
                "hone.dev/attempt": "1",
                "batch.kubernetes.io/job-completion-index": "0",
            }
            pod: Body = {"namespace": job.namespace, "name": f"{job.name}-1-0-x", "uid": f"{job.name}-pod"}
            pod["labels"] = labels
            yield (
                "Pod",
                {"metadata": pod, "spec": {"nodeName": f"gpu-{len(job.name) % 4}"}, "status": {"phase": "Running"}},
            )


def foreign(minute: int) -> Iterator[str]:
    """What the exporters of others say: DCGM's, the kubelet's, kube-state-metrics', and the sidecar of vLLM."""
    for job in JOBS:
        if job.starts <= minute < job.ends:
            pod = f'namespace="{job.namespace}",pod="{job.name}-1-0-x"'
            busy = 0.0 if job.name == "ranker-5" and minute > 200 else 0.42 + math.sin(minute / 9 + job.gpus) / 20
            for gpu in range(job.gpus):
                yield f'DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{{pod},gpu="{gpu}"}} {busy}'
                yield f'DCGM_FI_DEV_FB_USED{{{pod},gpu="{gpu}"}} {52_000 + minute * 3 + gpu}'
            yield f'container_memory_working_set_bytes{{{pod},container="trainer"}} {21e9 + minute * 4e6}'
    for namespace in ("support", "search", "law"):
        claim = f'namespace="{namespace}",persistentvolumeclaim="hone-store"'
        yield f"kube_persistentvolumeclaim_resource_requests_storage_bytes{{{claim}}} 5e11"
    yield 'hone_served{namespace="support",pod="server",name="triage",version="triage-v1"} 1'
    yield f'hone_serve_problem{{namespace="support",pod="server",name="triage",cause="user"}} {int(minute > 310)}'


@dataclass
class Fleet:
    """Exposes the story minute by minute."""

    zero: float
    cache: Cache = field(default_factory=Cache)
    stored: dict[str, dict[str, int]] = field(default_factory=dict)
    refusals: RefusalCounter = field(default_factory=RefusalCounter)
    minute: int = 0

    def __post_init__(self) -> None:
        self.reports = ProgressStore(lambda key: None, interval=60)
        self.metrics = Metrics(self.cache, self.reports, lambda: self.minute % 5, self.stored, since=0.0)
        self.metrics.registry.register(self.refusals)
        self.metrics.certificates({"serving": self.zero + 60 * 86400, "authority": self.zero + 3000 * 86400})
        self.metrics.deaf("Pod")
        self.trainer = PrometheusReporter(WATCHED.name, 0, "127.0.0.1")

    def advance(self, minute: int) -> Iterator[str]:
        """The samples at a minute, without their time."""
        self.minute = minute
        bodies = [*others(self.zero, minute)]
        bodies += [("FineTuneJob", body_of(job, self.zero, minute)) for job in JOBS if minute >= job.created]
        for old in self.cache.items("Pod"):
            if old["metadata"]["name"] not in {body["metadata"]["name"] for kind, body in bodies if kind == "Pod"}:
                self.cache.remove("Pod", old)
        for kind, body in bodies:
            body["metadata"]["resourceVersion"] = str(minute + 1)
            self.cache.put(kind, body)
            if kind != "Pod":
                key = Key(kind, body["metadata"]["namespace"], body["metadata"]["name"])
                self.metrics.reconciled(key, 0.02 + (minute % 7) / 50)
        for number, namespace in enumerate(("support", "search", "law"), 1):
            self.stored[namespace] = {"models": 10**9 * (40 // number + minute // 9), "runs": 10**9 * (9 + minute // 4)}
        if minute % 50 == 0:
            self.metrics.failed(Key("Dataset", "law", "contracts"), TimeoutError())
            self.refusals.add("not HTTP", "203.0.113.9")
        own = 'cluster="east",instance="10.0.0.7:8080"'
        yield from _lines((f for f in self.metrics.registry.collect()), own)
        watched = f'namespace="{WATCHED.namespace}",finetunejob="{WATCHED.name}"'
        yield f"hone_job_eta_seconds{{{watched}}} {max(0, WATCHED.ends - minute) * 60}"
        yield from foreign(minute)
        if minute >= WATCHED.starts:
            phases = {
                "loading": 200.0,
                "evaluatingBase": 90.0,
                "training": 55.0 * (minute - WATCHED.starts),
                "saving": 2.0 * minute,
            }
            self.trainer.report(Progress().but(**numbers(WATCHED, minute), phases=phases))
            with urllib.request.urlopen(f"http://127.0.0.1:{self.trainer.port}/metrics") as answer:
                pod = f'cluster="east",namespace="{WATCHED.namespace}",pod="{WATCHED.name}-1-0-x"'
                yield from _lines(text_string_to_metric_families(answer.read().decode()), pod, only="hone_trainer_")


def _lines(families: Iterable[Any], own: str, only: str = "") -> Iterator[str]:
    for family in families:
        for sample in family.samples:
            if sample.name.startswith(only):
                labels = ",".join([*(f'{k}="{v}"' for k, v in sample.labels.items()), own])
                yield f"{sample.name}{{{labels}}} {sample.value}"


def write(file: Path, now: float) -> None:
    """The whole story in OpenMetrics."""
    fleet = Fleet(now - HOURS * 3600)
    with file.open("w") as out:
        for second in range(0, HOURS * 3600 + 1, STEP):
            at = fleet.zero + second
            for line in fleet.advance(second // 60):
                name, _, value = line.rpartition(" ")
                named = name if "cluster=" in name else name.replace("{", '{cluster="east",', 1)
                if "hone_trainer_last_progress" in name or "process_start_time" in name:
                    value = str(at - 15 if "trainer" in name else fleet.zero + (12_060 if second > 12_000 else -9e4))
                out.write(f"{named} {value} {at:.0f}\n")
        out.write("# EOF\n")
    fleet.trainer.close()


def first_step(begin: float) -> float:
    """Where promtool may begin to evaluate rules: where no step is left in its first block, it writes none at all."""
    left = -begin % BLOCK
    return begin + left if left < STEP else begin


@contextlib.contextmanager
def prometheus(folder: Path, rules: Path) -> Iterator[Server]:
    """A Prometheus that has the story, what the chart's rules record of it, and the alerts that fire at its end."""
    now = float(int(time.time()))
    write(folder / "story.txt", now)
    data = folder / "data"
    _run(tools.promtool(), "tsdb", "create-blocks-from", "openmetrics", folder / "story.txt", data)
    prices = [
        {"record": "hone:gpu_hour_price", "expr": f"vector({price})", "labels": {"gpu_product": name}}
        for name, price in PRICES.items()
    ]
    groups = yaml.safe_load(rules.read_text())["groups"]
    held, cost = (rule for group in groups for rule in group["rules"] if "record" in rule)
    files = {"prices.yaml": prices, "held.yaml": [*prices, held], "cost.yaml": [cost]}
    for name, rules_of_file in files.items():
        (folder / name).write_text(yaml.safe_dump({"groups": [{"name": "recorded", "rules": rules_of_file}]}))
    for each in ("held.yaml", "cost.yaml"):  # the second reads what the first has recorded
        with serving(folder, data, []) as server:
            begin = first_step(now - HOURS * 3600)
            times = ("--start", f"{begin:.0f}", "--end", f"{now:.0f}", "--eval-interval", f"{STEP}s")
            to = ("--url", server.url, *times, "--output-dir", folder / "more")
            _run(tools.promtool(), "tsdb", "create-blocks-from", "rules", *to, folder / each)
        for block in (folder / "more").iterdir():
            shutil.move(block, data / block.name)
    with serving(folder, data, [rules, folder / "prices.yaml"]) as server:
        yield Server(server.url, now)


@dataclass(frozen=True)
class Server:
    """A running Prometheus, and the end of the story."""

    url: str
    now: float

    def get(self, path: str, **fields: object) -> Any:
        """The data of an answer."""
        query = urllib.parse.urlencode(fields)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}") as answer:
            return json.load(answer)["data"]

    def query(self, expr: str, *, instant: bool) -> list[Any]:
        """The series of an expression: at the end, or over the whole time."""
        if instant:
            at = {} if "ALERTS" in expr else {"time": self.now}  # rules are evaluated after the story
            return list(self.get("query", query=expr, **at)["result"])
        start = self.now - HOURS * 3600
        return list(self.get("query_range", query=expr, start=start, end=self.now, step=STEP)["result"])


@contextlib.contextmanager
def serving(folder: Path, data: Path, rules: list[Path], scraped: Sequence[Body] = ()) -> Iterator[Server]:
    """A Prometheus with this data, which evaluates rules and scrapes each second."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "prometheus.yaml"
    body = {"global": {"evaluation_interval": "1s", "scrape_interval": "1s"}, "rule_files": list(map(str, rules))}
    config.write_text(yaml.safe_dump(body | {"scrape_configs": list(scraped)}))
    command = [
        str(tools.prometheus()),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            server = Server(f"http://{address}", 0.0)
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{server.url}/-/ready").close()
                    break
                if process.poll() is not None:
                    raise RuntimeError((folder / "prometheus.log").read_text()[-2000:])
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            process.wait()


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
