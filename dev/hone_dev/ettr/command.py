"""`python -m hone_dev ettr`: interrupt a run on real pods in each way; say what that costs at the rate of Llama 3."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.table import Table

from hone_api.states import JobPhase
from hone_dev.console import HoneDevError, console, note, step
from hone_dev.demo import runs
from hone_dev.demo.command import EXAMPLE, install
from hone_dev.demo.targets import Target, embedded
from hone_dev.ettr import mix
from hone_dev.ettr.faults import INTERRUPT

NAMESPACE, NAME = "ettr", "interrupted"
WANTED = 0.97
"""The least share of its time that a run should spend in steps that count."""
SIZES, LARGER = (8, 64, 512), (4096, mix.GPUS)
"""GPUs of a run: as many as Hone's users have, which have to reach it; and more, for comparison."""
HANG_TIMEOUT = 60
"""Seconds, the least that a job may ask for; a step may take 600 by default, which the figures count."""
DEFAULT_HANG_TIMEOUT = 600
EVERY = 5
"""Steps between checkpoints."""
GUARD = 1800.0
"""Seconds; a guard against hanging, not an expectation."""


def run(times: int) -> bool:
    """Interrupt the run `times` times in each way and print the figures; whether the share is as wanted."""
    target = embedded()
    target.values["progress"] = {"statusIntervalSeconds": 1}
    install(target)
    _remove(target)
    try:
        costs, save = measure(target, times)
    finally:
        _remove(target)
    return show(costs, save)


def measure(target: Target, times: int) -> tuple[dict[str, float], float]:
    """Seconds from each kind of interruption to the next step (the mean), and for which a checkpoint stops the run."""
    _apply(target)
    seconds: dict[str, list[float]] = {kind: [] for kind in INTERRUPT}
    for _ in range(times):
        for kind, interrupt in INTERRUPT.items():
            with step(f"{kind}: from here to the next step"):
                seconds[kind].append(_interrupted(target, interrupt))
    costs = {kind: sum(each) / len(each) for kind, each in seconds.items()}
    costs[mix.HUNG] += DEFAULT_HANG_TIMEOUT - HANG_TIMEOUT
    return costs, _saving(_status(target))


def _interrupted(target: Target, interrupt: Callable[[Target, Mapping[str, Any]], None]) -> float:
    """Interrupt the attempt that runs; seconds until the next one has made a step."""
    attempt = len(_status(target)["attempts"])
    _wait(target, lambda status: _gets_on(status, attempt), f"attempt {attempt} does not get on")
    selector = "hone.dev/component=training"
    pods = target.get("--namespace", NAMESPACE, "pods", "--selector", selector, "--field-selector=status.phase=Running")
    last = max(pods["items"], key=lambda pod: str(pod["metadata"]["name"]))
    started = time.monotonic()
    interrupt(target, last)
    _wait(target, lambda status: _trains(status, attempt + 1), f"attempt {attempt + 1} makes no step")
    return time.monotonic() - started


def _trains(status: Mapping[str, Any], attempt: int) -> bool:
    """Whether this attempt has made a step."""
    attempts = status["attempts"]
    return len(attempts) >= attempt and "training" in (attempts[attempt - 1].get("phases") or {})


def _gets_on(status: Mapping[str, Any], attempt: int) -> bool:
    """Whether it has saved a checkpoint since it began."""
    if not _trains(status, attempt):
        return False
    return bool(status["progress"]["step"] - status["attempts"][attempt - 1].get("startStep", 0) > EVERY)


def _saving(status: Mapping[str, Any]) -> float:
    """Seconds for one checkpoint, over all attempts."""
    attempts = status["attempts"][:-1]
    saved = sum((each["endStep"] - each["startStep"]) // EVERY for each in attempts)
    seconds = sum((each.get("phases") or {}).get("saving", 0) for each in attempts)
    return float(seconds / max(1, saved))


def _wait(target: Target, reached: Callable[[Mapping[str, Any]], bool], what: str) -> None:
    until = time.monotonic() + GUARD
    while not reached(status := _status(target)):
        if status.get("phase") in (JobPhase.FAILED, JobPhase.SUCCEEDED):
            raise HoneDevError(f"{what}: the job is {status['phase']}: {status.get('failure')}")
        if time.monotonic() > until:
            raise HoneDevError(f"{what} within {GUARD:.0f} s")
        time.sleep(0.2)


def _status(target: Target) -> dict[str, Any]:
    status: dict[str, Any] = target.get("--namespace", NAMESPACE, "ftj", NAME).get("status") or {}
    return {"attempts": [], **status}


def _apply(target: Target) -> None:
    """Example 01's rows and model, on two nodes, without an end."""
    objects = runs.manifests(EXAMPLE)
    job = runs.job_of(objects)
    job["metadata"]["name"] = NAME
    job["spec"] |= {
        "training": {"maxSteps": 100_000, "batchSize": 2, "microBatchSize": 1, "maxLength": 128},
        "evaluation": {"maxRows": 1, "samples": 1, "maxNewTokens": 1},
        "checkpoints": {"everySteps": EVERY},
        "resources": {"nodes": 2, "gpusPerNode": 0, "cpu": "500m", "memory": "3Gi"},
        "restarts": {"maxRestarts": 100, "hangTimeout": f"{HANG_TIMEOUT // 60}m"},
    }
    labels = {"hone.dev/enabled": "true", "pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    target.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(namespace))
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    target.kubectl("--namespace", NAMESPACE, "apply", "--server-side", "--filename=-", stdin=document)
    with step("until the first step"):
        _wait(target, lambda status: bool(status["attempts"]), "the job does not start")


def _remove(target: Target) -> None:
    target.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=600s")


def show(costs: Mapping[str, float], save: float) -> bool:
    """Print the figures; whether runs of all `SIZES` reach `WANTED`."""
    table = Table("Interruption", "Of 419 for Llama 3", "Seconds to the next step")
    for kind, what in mix.KINDS.items():
        table.add_row(kind, f"{what.count}: {what.causes}", f"{costs[kind]:.0f}")
    console.print(table)
    note(f"a checkpoint stops the run for {save:.1f} s")
    table = Table("GPUs", "Hours between interruptions", "Minutes between checkpoints", "ETTR")
    reached = True
    for gpus in (*SIZES, *LARGER):
        result = mix.run(gpus, costs, save)
        reached &= gpus in LARGER or result.ratio >= WANTED
        table.add_row(
            f"{gpus:,}", f"{result.between / 3600:,.1f}", f"{result.interval / 60:,.1f}", f"{result.ratio:.2%}"
        )
    console.print(table)
    return reached
