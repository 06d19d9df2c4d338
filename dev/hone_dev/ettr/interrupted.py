"""A run on real pods, without an end, that is interrupted; and how long it takes until it trains again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hone_api.words.states import JobPhase
from hone_dev.demo import runs
from hone_dev.demo.command import EXAMPLE, install
from hone_dev.demo.targets import Target, embedded
from hone_dev.ettr.faults import INTERRUPT
from hone_dev.tools.console import HoneDevError, step

NAMESPACE, NAME = "ettr", "interrupted"
HANG_TIMEOUT = 60
"""Seconds, the least that a job may ask for."""
EVERY = 5
"""Steps between checkpoints."""
GUARD = 1800.0
"""Seconds; a guard against hanging, not an expectation."""


@dataclass(frozen=True)
class InterruptedRun:
    """Example 01's rows and model, on the embedded cluster."""

    target: Target

    def status(self) -> dict[str, Any]:
        """That of the job, with `attempts` in any case."""
        status: dict[str, Any] = self.target.get("--namespace", NAMESPACE, "ftj", NAME).get("status") or {}
        return {"attempts": [], **status}

    def interrupt(self, kind: str) -> float:
        """Interrupt the attempt that runs, in a way of `INTERRUPT`; seconds until the next one has made a step."""
        attempt = len(self.status()["attempts"])
        self.wait(lambda status: _gets_on(status, attempt), f"attempt {attempt} does not get on")
        selector = "hone.dev/component=training"
        running = ("--selector", selector, "--field-selector=status.phase=Running")
        pods = self.target.get("--namespace", NAMESPACE, "pods", *running)
        last = max(pods["items"], key=lambda pod: str(pod["metadata"]["name"]))
        started = time.monotonic()
        INTERRUPT[kind](self.target, last)
        self.wait(lambda status: _trains(status, attempt + 1), f"attempt {attempt + 1} makes no step")
        return time.monotonic() - started

    def wait(self, reached: Callable[[Mapping[str, Any]], bool], what: str) -> None:
        """Until its status is as wanted.

        Raises:
            HoneDevError: the job has ended, or nothing has happened for `GUARD`; `what` says what is missing.
        """
        until = time.monotonic() + GUARD
        while not reached(status := self.status()):
            if status.get("phase") in (JobPhase.FAILED, JobPhase.SUCCEEDED):
                raise HoneDevError(f"{what}: the job is {status['phase']}: {status.get('failure')}")
            if time.monotonic() > until:
                raise HoneDevError(f"{what} within {GUARD:.0f} s")
            time.sleep(0.2)


@contextmanager
def interrupted_run(nodes: int) -> Iterator[InterruptedRun]:
    """A run of so many pods of one rank each, in its first attempt; it is deleted at the end."""
    target = embedded()
    target.values["progress"] = {"statusIntervalSeconds": 1}
    install(target)
    _remove(target)
    try:
        _apply(target, nodes)
        run = InterruptedRun(target)
        with step("until the first step"):
            run.wait(lambda status: bool(status["attempts"]), "the job does not start")
        yield run
    finally:
        _remove(target)


def _trains(status: Mapping[str, Any], attempt: int) -> bool:
    """Whether this attempt has made a step."""
    attempts = status["attempts"]
    return len(attempts) >= attempt and "training" in (attempts[attempt - 1].get("phaseSeconds") or {})


def _gets_on(status: Mapping[str, Any], attempt: int) -> bool:
    """Whether it has saved a checkpoint since it began."""
    if not _trains(status, attempt):
        return False
    return bool(status["progress"]["step"] - status["attempts"][attempt - 1].get("startStep", 0) > EVERY)


def _apply(target: Target, nodes: int) -> None:
    objects = runs.manifests(EXAMPLE)
    job = runs.job_of(objects)
    job["metadata"]["name"] = NAME
    job["spec"] |= {
        "training": {"maxSteps": 100_000, "batchSize": 2, "microBatchSize": 1, "maxLength": 128},
        "evaluation": {"maxRows": 1, "samples": 1, "maxNewTokens": 1},
        "checkpoints": {"everySteps": EVERY},
        "resources": {"nodes": nodes, "gpusPerNode": 0, "cpu": "500m", "memory": "3Gi"},
        "restarts": {"maxRestarts": 100, "hangTimeout": f"{HANG_TIMEOUT // 60}m"},
    }
    labels = {"hone.dev/enabled": "true", "pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    target.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(namespace))
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    target.kubectl("--namespace", NAMESPACE, "apply", "--server-side", "--filename=-", stdin=document)


def _remove(target: Target) -> None:
    target.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=600s")
