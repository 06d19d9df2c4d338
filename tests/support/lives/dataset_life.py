"""A Dataset that is reconciled again and again, without a cluster."""

from __future__ import annotations

from typing import Any

from support.lives.decided import Decided

from hone_api.contract.plan_reading import parse_plan
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.dataset.dataset import ObservedForDataset, reconcile


class Life(Decided):
    """A Dataset that is reconciled again and again."""

    def __init__(self, world: Any, **spec: Any):
        super().__init__(world, "Dataset", "rows", {"source": {"uri": "configmap://answers/rows.jsonl"}, **spec})
        self.dataset = self.body

    def tick(self, seconds: float = 0, **seen: Any) -> Outcome:
        observed = ObservedForDataset(jobs=self.children, **seen)
        outcome = reconcile(self.body, observed, self.world.time(seconds), self.world.platform)
        return self.carry_out(outcome, seen.get("refusals") or ())


RESULT = {
    "kind": "Materialize",
    "digest": "sha256:" + "0" * 64,
    "path": "datasets/" + "0" * 64,
    "rows": 10,
    "rejected": 1,
    "splits": [{"name": "train", "rows": 9}],
    "errors": [{"code": "MissingColumn", "count": 1, "rows": [4]}],
    "curation": [
        {
            "step": "ExactDuplicates",
            "removed": 2,
            "changed": 0,
            "otherAnswers": 0,
            "rows": [3, 7],
            "example": "row 3: repeats row 1",
        }
    ],
    "summary": "10 of 11 rows are good.",
    "advice": ["10 rows are few."],
    "report": "datasets/" + "0" * 64 + "/report.html",
}


def plan_of(outcome: Outcome) -> Any:
    return parse_plan(outcome.create[0]["data"]["plan.json"])


def ready(name: str, **splits: int) -> dict[str, Any]:
    rows = [{"name": split, "rows": count} for split, count in splits.items()]
    status = {"observedGeneration": 1, "digest": "sha256:" + "1" * 64, "splits": rows}
    status["conditions"] = [{"type": "Ready", "status": "True", "reason": "Materialized", "message": ""}]
    return {"metadata": {"name": name, "generation": 1}, "spec": {}, "status": status}
