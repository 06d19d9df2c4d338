"""A Model and its ModelVersions, reconciled without a cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.model.model import ObservedForModel, reconcile

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def version(number: int, ready: str = "True", approval: str = "Candidate", **changes: Any) -> dict[str, Any]:
    """A ModelVersion of tutor."""
    conditions = [{"type": "Ready", "status": ready, "reason": "Verified", "message": ""}]
    if changes.get("stalled"):
        conditions.append({"type": "Stalled", "status": "True", "reason": "ChecksumMismatch", "message": ""})
    meta = {"name": changes.get("name", f"tutor-v{number}"), "creationTimestamp": "2026-01-01T00:00:00Z"}
    if changes.get("going"):
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    decided = {"state": approval} | ({"by": "ada"} if approval == "Approved" else {})
    spec = {"modelName": changes.get("model", "tutor"), "version": number, "approval": decided}
    spec["artifacts"] = [{"digest": each} for each in changes.get("digests", ())]
    spec["evaluation"] = {"numbers": changes.get("numbers", []), **changes.get("evaluation", {})}
    return {"kind": "ModelVersion", "metadata": meta, "spec": spec, "status": {"conditions": conditions}}


class Named:
    """A Model that is reconciled again and again."""

    def __init__(self, **aliases: int):
        meta = {"name": "tutor", "namespace": "team", "uid": "m", "generation": 1}
        self.body: dict[str, Any] = {"kind": "Model", "metadata": meta, "spec": {}}
        self.minutes = 0
        self.in_use: set[str] = set()
        self.pin(**aliases)

    def pin(self, **aliases: int) -> None:
        self.body["spec"]["aliases"] = [{"name": name, "version": number} for name, number in aliases.items()]

    def promote(self, policy: str = "Automatic", **promotion: Any) -> None:
        self.body["spec"]["promotion"] = {"policy": policy, "aliases": ["champion"], **promotion}

    def tick(self, *versions: dict[str, Any]) -> Outcome:
        self.minutes += 1
        outcome = reconcile(
            self.body, ObservedForModel(versions, frozenset(self.in_use)), START + timedelta(minutes=self.minutes)
        )
        if outcome.status is not None:
            self.body["status"] = outcome.status
        return outcome

    def targets(self) -> dict[str, str]:
        return {a["name"]: a["modelVersion"] for a in self.body["status"].get("aliases", ())}

    def condition(self, type_: str) -> tuple[str, str]:
        found = next(c for c in self.body["status"]["conditions"] if c["type"] == type_)
        return found["status"], found["reason"]


def deleted(outcome: Outcome) -> list[str]:
    return [body["metadata"]["name"] for body in outcome.delete]
