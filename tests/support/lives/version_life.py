"""A ModelVersion that is reconciled again and again, by the pure function alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from support.lives.decided import Decided

from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.version.modelversion import ObservedForModelVersion, reconcile

VERIFIED = {"result": {"kind": "Verify", "files": 3, "sizeBytes": 10}}


class Life(Decided):
    """A ModelVersion that is reconciled again and again."""

    def __init__(self, world: Any, uri: str = "pvc://hone-store/models/job-uid/adapter"):
        lineage = {
            "baseModel": {"uri": "hf://org/model"},
            "datasets": [],
            "job": {"name": "run", "uid": "job-uid"},
            "method": "SFT",
            "hyperParameters": {},
            "seed": 42,
        }
        spec = {
            "modelName": "tutor",
            "version": 1,
            "artifacts": [{"format": "Adapter", "uri": uri, "digest": world.digest, "sizeBytes": 10}],
            "lineage": lineage,
            "evaluation": {"numbers": [{"name": "loss", "base": "3.9", "tuned": "2.1"}]},
        }
        super().__init__(world, "ModelVersion", "tutor-v1", spec)
        self.version = self.body

    def tick(
        self, seconds: float = 0, missing_claim: str | None = None, missing_targets: Collection[str] = (), **seen: Any
    ) -> Outcome:
        observed = ObservedForModelVersion(
            jobs=self.children, missing_claim=missing_claim, missing_targets=frozenset(missing_targets), **seen
        )
        return self.carry_out(reconcile(self.body, observed, self.world.time(seconds), self.world.platform))

    def verified(self) -> None:
        """Let its files be verified, after a minute."""
        self.tick()
        self.ends("Complete", self.world.dead(0, outcome=VERIFIED))
