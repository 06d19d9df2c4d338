"""A Model whose job is repeated, in memory: what a decision creates and deletes does so before the next one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.model.model import ObservedForModel, reconcile
from hone_operator.reconcile.retrain.retrain_base import ObservedForBase
from hone_operator.reconcile.retrain.retraining import ObservedForRetraining
from hone_operator.times import format_time

START = datetime(2026, 1, 10, 12, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def digest(content: int) -> str:
    return f"sha256:{content:064x}"


class World:
    """A Model whose job `first` trained on content 1 of Dataset `faq`, and time that passes."""

    def __init__(self, **retrain: Any) -> None:
        self.now = START
        spec = {"retrain": {"fineTuneJob": "first", "rows": {"atLeast": 100}, **retrain}}
        meta = {"name": "tutor", "namespace": "team", "uid": "m", "creationTimestamp": format_time(START)}
        self.model: dict[str, Any] = {"kind": "Model", "metadata": meta, "spec": spec}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.add("first", contents={"faq": digest(1)})
        self.end("first", "Succeeded")
        self.dataset: dict[str, Any] = {"kind": "Dataset", "metadata": {"name": "faq"}, "spec": {}}
        self.rows(1, 1000)
        self.refusals: list[Refusal] = []
        self.versions: list[dict[str, Any]] = []
        self.parents: frozenset[str] = frozenset()
        self.base = ObservedForBase()

    def add(self, name: str, body: dict[str, Any] | None = None, contents: dict[str, str] | None = None) -> None:
        """A job of this model."""
        spec = {
            "model": {"uri": "hf://org/base"},
            "datasets": [{"name": "faq"}],
            "output": {"modelName": "tutor"},
            "resources": {"nodes": 2, "gpusPerNode": 4},
            "suspend": True,
        }
        made = body or {"kind": "FineTuneJob", "metadata": {"name": name}, "spec": spec}
        made["metadata"]["creationTimestamp"] = format_time(self.now)
        attempt = {
            "number": 1,
            "jobName": f"{name}-1",
            "startTime": format_time(self.now),
            "phaseSeconds": {"scheduled": 0},
        }
        made["status"] = {
            "startTime": format_time(self.now),
            "conditions": [],
            "attempts": [{**attempt, "outcome": "Running"}],
        }
        if contents:
            made["status"]["resolved"] = {"datasetDigests": contents}
        self.jobs[name] = made

    def end(self, name: str, how: str) -> None:
        conditions = [{"type": type_, "status": "True", "reason": "x", "message": ""} for type_ in ("Finished", how)]
        self.jobs[name]["status"] |= {"conditions": conditions, "completionTime": format_time(self.now)}
        self.jobs[name]["status"]["attempts"][-1] |= {"outcome": how, "endTime": format_time(self.now)}

    def rows(self, content: int, rows: int, changed: int = 0, ready: str = "True") -> None:
        self.dataset["status"] = {
            "digest": digest(content),
            "rows": rows,
            "conditions": [{"type": "Ready", "status": ready, "reason": "x", "message": ""}],
            "changes": {"previous": digest(content - 1), "added": changed, "removed": 0},
        }

    def tick(self, after: timedelta = timedelta(0)) -> Outcome:
        """A decision later; what it creates and deletes exists, or not, from then on."""
        self.now += after
        jobs, template = list(self.jobs.values()), self.jobs.get("first")
        seen = ObservedForRetraining(template, {"faq": self.dataset}, jobs, self.parents, self.versions, self.base)
        outcome = reconcile(self.model, ObservedForModel(retraining=seen).after(self.refusals), self.now)
        if outcome.status is not None:
            self.model["status"] = outcome.status
        if not self.refusals:
            for body in (body for body in outcome.create if body["kind"] == "FineTuneJob"):
                self.add(body["metadata"]["name"], body)
        for gone in outcome.delete:
            self.jobs.pop(gone["metadata"]["name"], None)
        return outcome

    def repeat(self, content: int, how: str = "Succeeded") -> str:
        """A job on this content, from new rows to its end an hour later; returns its name."""
        before = set(self.jobs)
        self.rows(content, 1000, 200)
        self.tick()
        self.tick(DAY)
        [name] = set(self.jobs) - before
        self.now += HOUR
        self.end(name, how)
        self.jobs[name]["status"]["resolved"] = {"datasetDigests": {"faq": digest(content)}}
        self.tick()
        return name

    def reason(self) -> str:
        return str(self._condition()["reason"])

    def message(self) -> str:
        return str(self._condition()["message"])

    def _condition(self) -> dict[str, Any]:
        found: dict[str, Any] = next(c for c in self.model["status"]["conditions"] if c["type"] == "UpToDate")
        return found

    def made(self) -> list[str]:
        return [name for name in self.jobs if name != "first"]
