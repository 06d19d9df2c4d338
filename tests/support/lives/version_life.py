"""A ModelVersion that is reconciled again and again, by the pure function alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.version.modelversion import ObservedForModelVersion, reconcile

VERIFIED = {"result": {"kind": "Verify", "files": 3, "sizeBytes": 10}}


class Life:
    """A ModelVersion that is reconciled again and again."""

    def __init__(self, world: Any, uri: str = "pvc://hone-store/models/job-uid/adapter"):
        self.world = world
        self.version = {
            "kind": "ModelVersion",
            "metadata": {"name": "tutor-v1", "namespace": "team", "uid": "version-uid", "generation": 1},
            "spec": {
                "modelName": "tutor",
                "version": 1,
                "artifacts": [{"format": "Adapter", "uri": uri, "digest": world.digest, "sizeBytes": 10}],
                "lineage": {
                    "baseModel": {"uri": "hf://org/model"},
                    "datasets": [],
                    "job": {"name": "run", "uid": "job-uid"},
                    "method": "SFT",
                    "hyperParameters": {},
                    "seed": 42,
                },
                "evaluation": {"numbers": [{"name": "loss", "base": "3.9", "tuned": "2.1"}]},
            },
        }
        self.children: list[Any] = []

    def tick(
        self, seconds: float = 0, missing_claim: str | None = None, missing_targets: Collection[str] = (), **seen: Any
    ) -> Outcome:
        observed = ObservedForModelVersion(
            jobs=self.children, missing_claim=missing_claim, missing_targets=frozenset(missing_targets), **seen
        )
        outcome = reconcile(self.version, observed, self.world.time(seconds), self.world.platform)
        if outcome.status is not None:
            self.version["status"] = outcome.status
        self.children += [self.world.child(b) for b in outcome.create if b["kind"] == "Job"]
        gone = {b["metadata"]["name"] for b in outcome.delete}
        self.children = [c for c in self.children if c.name not in gone]
        return outcome

    def ends(self, type_: str, pod: Any) -> None:
        self.children[-1] = self.world.ended(self.world.child(self.children[-1].body, pod), type_)

    def verified(self) -> None:
        """Let its files be verified, after a minute."""
        self.tick()
        self.ends("Complete", self.world.dead(0, outcome=VERIFIED))

    @property
    def status(self) -> dict[str, Any]:
        return self.version["status"]
