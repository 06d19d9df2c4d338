"""An object that is reconciled again and again by the pure function alone: what is decided is done."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hone_operator.reconcile.core.outcome import Outcome


class Decided:
    """An object, and the Jobs that decisions about it have made.

    Attributes:
        world: makes Jobs and pods as they are observed.
    """

    def __init__(self, world: Any, kind: str, name: str, spec: dict[str, Any]) -> None:
        self.world = world
        meta = {"name": name, "namespace": "team", "uid": f"{kind.lower()}-uid", "generation": 1}
        self.body: dict[str, Any] = {"kind": kind, "metadata": meta, "spec": spec}
        self.children: list[Any] = []

    def carry_out(self, outcome: Outcome, refusals: Collection[Any] = ()) -> Outcome:
        """The Jobs that it asks for exist, or do not, from the next look on."""
        if outcome.status is not None:
            self.body["status"] = outcome.status
        if not refusals:
            self.children += [self.world.child(b) for b in outcome.create if b["kind"] == "Job"]
        gone = {b["metadata"]["name"] for b in outcome.delete}
        self.children = [c for c in self.children if c.name not in gone]
        return outcome

    def ends(self, type_: str, *pods: Any, seconds: float = 60, which: int = -1) -> None:
        """The newest Job, or another one, ends with these pods."""
        job = self.world.child(self.children[which].body, *pods)
        self.children[which] = self.world.ended(job, type_, seconds)

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.body["status"]
        return status
