"""Synthesis: rows that a model makes of a source's rows or documents, and that wait for people.

source -> what the model is shown (material) -> prompts and answers (templates, endpoint, generate) -> filters -> the
batch in the store (batch) -> people's decisions (hone_api.dataset.review) -> rows that are materialized as any others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone_api.dataset.review import Candidate, Decision, Verdict, Verified, batch_folder, verify
from hone_api.dataset.synthesis import Raft, SyntheticRows, Template
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.readers.rows import RawRow
from hone_trainer.datasets.synthesis import generate, material, raft
from hone_trainer.datasets.synthesis.batch import GeneratedBatch
from hone_trainer.datasets.synthesis.templates import TEMPLATES
from hone_trainer.reporting.task import TaskProgress

PROVENANCE = "synthetic.jsonl"
"""Next to the splits: for each row, where it comes from and who accepted it."""
_GROUP = "group"


@dataclass(frozen=True)
class Synthesised:
    """A batch, and what people have made of it so far."""

    plan: MaterializePlan
    """For the rows: their format is the template's."""
    verified: Verified
    counts: SyntheticRows

    def rows(self) -> Iterator[RawRow]:
        """The accepted rows."""
        settings = self.plan.raft or Raft()
        for number, (candidate, decision) in enumerate(self.verified.accepted, 1):
            row = content(candidate, decision)
            if candidate.provenance.template == Template.RAFT:
                row = raft.arrange(row, settings)
            yield RawRow(number, f"synthetic row {candidate.id}", {**row, _GROUP: candidate.group})

    def write_provenance(self, folder: Path, shown: Callable[[Any], Any]) -> None:
        """Where each row comes from and who accepted it, in the order of `rows`; shown: a row as people may see it."""
        with open(folder / PROVENANCE, "w", encoding="utf-8") as file:
            for candidate, decision in self.verified.accepted:
                entry = {"id": candidate.id, "synthetic": True, "row": shown(content(candidate, decision))}
                verdict = decision.to_json() if decision else None
                if verdict and verdict.get("row"):
                    verdict["row"] = shown(verdict["row"])
                entry |= {"provenance": candidate.provenance.to_json(), "decision": verdict}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def content(candidate: Candidate, decision: Decision | None) -> dict[str, Any]:
    """The row as it was accepted."""
    edited = decision is not None and decision.verdict == Verdict.EDIT and decision.row is not None
    return decision.row if edited and decision and decision.row else candidate.row


def run(plan: MaterializePlan, rows: Iterator[RawRow], revision: str, progress: TaskProgress) -> Synthesised:
    """Generate what is missing of the batch, and look at the decisions.

    Args:
        rows: of the source.
        revision: of the source.

    Raises:
        ConfigError, SourceError, DataError: as `material.load` and `generate.run`.
    """
    synthesis = plan.synthesis
    assert synthesis is not None
    folder = batch_folder(plan.name, synthesis)
    batch = GeneratedBatch.open(Path(plan.store) / folder, plan.name, synthesis)
    generate.run(plan, material.load(plan, rows), batch, revision, progress)
    verified = verify(batch.candidates, batch.decisions(), synthesis)
    counts = verified.counts(batch.generated, batch.filtered, synthesis.review)
    counts = counts.model_copy(update={"folder": folder.as_posix(), "review": plan.review})
    form = TEMPLATES[synthesis.template].format
    splits = plan.splits.model_copy(update={"group_by": _GROUP})
    update = {"format": form, "columns": {}, "splits": splits}
    return Synthesised(plan.model_copy(update=update), verified, counts)
