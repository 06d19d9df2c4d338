"""The rows of a run: encoded, checked, counted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone_api.plan import DatasetInput, TrainingPlan
from hone_trainer import checks
from hone_trainer.encode import Encoded, encode_split, longest
from hone_trainer.errors import TrainerError
from hone_trainer.evaluate import HeldOut
from hone_trainer.manifest import write_atomically
from hone_trainer.methods import METHODS
from hone_trainer.model import Base


@dataclass(frozen=True)
class Data:
    """All examples of a run."""

    train: list[Any]
    held_out: list[HeldOut]
    end_marks: frozenset[int]
    summaries: dict[str, str]
    """What became of each split, by <dataset>/<split>."""
    warnings: list[str]

    @property
    def sentences(self) -> list[str]:
        """Summaries and warnings for people."""
        return [f"{name}: {text}" for name, text in self.summaries.items()] + self.warnings

    @property
    def longest(self) -> int:
        """Tokens of the longest training sequence."""
        return max(map(longest, self.train))


def load(plan: TrainingPlan, base: Base) -> Data:
    """Encode every split of the plan.

    Raises:
        TrainerError: InvalidRow, DatasetFormatMismatch, RowTooLong, NoTrainableRows; UnsupportedModel for an unusable
            tokenizer.
    """
    train: list[Any] = []
    marks: set[int] = set()
    summaries: dict[str, str] = {}
    warnings: list[str] = []

    def encoded(source: DatasetInput) -> Encoded:
        name = f"{source.name}/{source.split}"
        found = encode(plan, base, source.path)
        warnings.extend(checks.rows(found, base, name))
        summaries[name] = found.counts.summary()
        marks.update(found.counts.end_marks)
        return found

    for source in plan.datasets:
        train += encoded(source).rows
    held_out = [
        HeldOut(f"{s.name}/{s.split}", encoded(s).rows[: plan.evaluation.max_rows], Path(s.path))
        for s in plan.evaluation_datasets
    ]
    return Data(train, held_out, frozenset(marks), summaries, warnings)


def encode(plan: TrainingPlan, base: Base, path: str) -> Encoded:
    """One split by the plan's method, under its length and truncation policy."""
    method = METHODS[plan.method]
    return encode_split(
        path,
        method.encoder(plan, base),
        max_length=plan.training.max_length or method.longest(base) or base.context,
        truncation=plan.training.truncation,
    )


def claim(plan: TrainingPlan) -> None:
    """Mark the work folder as this run's, so that checkpoints are never resumed under another plan.

    Raises:
        TrainerError: InvalidConfiguration when the folder belongs to another plan.
    """
    file = Path(plan.work_path) / "plan.sha256"
    mine = identity(plan)
    if file.is_file():
        if file.read_text() != mine:
            raise TrainerError(
                "InvalidConfiguration",
                f"workPath {plan.work_path} holds the checkpoints of another plan: name another folder, or remove it",
            )
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, mine.encode())


def identity(plan: TrainingPlan) -> str:
    """SHA-256 over everything that the weights after a step depend on."""
    keep = {"method", plan.method.lower(), "model_uri", "model_commit", "adapter", "training", "deepspeed"}
    keep |= {"early_stopping", "evaluation", "nodes", "processes_per_node"}
    body = plan.model_dump(mode="json", include=keep)
    body["datasets"] = [d.digest for d in plan.datasets]
    body["evaluation_datasets"] = [d.digest for d in plan.evaluation_datasets]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
