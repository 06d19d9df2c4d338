"""The rows of a run: encoded, checked, counted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone_api.dataset_status import DatasetUse
from hone_api.plan import DatasetInput, TrainingPlan
from hone_trainer.datasets import shares
from hone_trainer.encoding.split_file import Encoded, encode_split, longest
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.models.base_model import Base
from hone_trainer.run import preflight
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.store.manifest import write_atomically
from hone_trainer.teachers import skipped


@dataclass(frozen=True)
class Data:
    """All examples of a run."""

    train: list[Any]
    held_out: list[HeldOut]
    end_marks: frozenset[int]
    summaries: dict[str, str]
    """What became of each split, by <dataset>/<split>."""
    warnings: list[str]
    used: list[DatasetUse]
    """What each Dataset gave to an epoch."""

    @property
    def sentences(self) -> list[str]:
        """Summaries and warnings for people."""
        return [f"{name}: {text}" for name, text in self.summaries.items()] + self.warnings

    @property
    def tokens(self) -> int:
        """Tokens of an epoch."""
        return sum(use.tokens for use in self.used)

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
    marks: set[int] = set()
    summaries: dict[str, str] = {}
    warnings: list[str] = []

    def encoded(source: DatasetInput) -> Encoded:
        name = f"{source.name}/{source.split}"
        found = encode(plan, base, source.path)
        unanswered = skipped.read(Path(source.path)) if plan.distillation else {}
        warnings.extend(skipped.warnings(name, found.counts.lines + len(unanswered), unanswered))
        warnings.extend(preflight.rows(found, base, name))
        summaries[name] = found.counts.summary() + skipped.summary(unanswered)
        marks.update(found.counts.end_marks)
        return found

    train, used = _mixed(plan, [encoded(source).rows for source in plan.datasets])
    held_out = [
        HeldOut(f"{s.name}/{s.split}", encoded(s).rows[: plan.evaluation.max_rows], Path(s.path))
        for s in plan.evaluation_datasets
    ]
    for use in used:
        summaries[f"{use.name}/{use.split}"] += _summary(use) if len(used) > 1 else ""
        warnings += _worn(use)
    return Data(train, held_out, frozenset(marks), summaries, warnings, used)


def _mixed(plan: TrainingPlan, found: list[list[Any]]) -> tuple[list[Any], list[DatasetUse]]:
    """The examples of one epoch in the order of the Datasets, and what each gave. The sampler shuffles them by seed."""
    parts = [
        shares.Part(f"{source.name}/{source.split}", [1] * len(examples), source.share)
        for source, examples in zip(plan.datasets, found, strict=True)
    ]
    picked = [
        [examples[index] for index in shares.pick(part, amount, plan.training.seed)]
        for part, amount, examples in zip(parts, shares.amounts(parts), found, strict=True)
    ]
    tokens = [sum(map(_tokens, examples)) for examples in picked]
    rows = [len(examples) for examples in picked]
    used = [
        DatasetUse(
            name=source.name,
            split=source.split,
            rows=rows[i],
            tokens=tokens[i],
            row_share=shares.percent(rows[i], sum(rows)),
            token_share=shares.percent(tokens[i], sum(tokens)),
            passes=f"{rows[i] / len(found[i]):.2f}",
        )
        for i, source in enumerate(plan.datasets)
    ]
    return [example for examples in picked for example in examples], used


def _tokens(example: Any) -> int:
    return sum(map(len, example.sequences))


def _summary(use: DatasetUse) -> str:
    of_all = f"{use.row_share} of the rows and {use.token_share} of the tokens"
    return f"; of an epoch: {use.rows} rows, {use.tokens} tokens ({of_all}), {use.passes} passes"


def _worn(use: DatasetUse) -> list[str]:
    """What to tell of rows that are repeated very often."""
    if float(use.passes) <= shares.MANY_PASSES:
        return []
    advice = "add rows, or lower the share"
    return [f"{use.name}/{use.split}: a row is used {use.passes} times an epoch to reach the share: {advice}"]


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

    The plan itself is kept there, too: with it a checkpoint can be exported later.

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
    write_atomically(file.with_name("plan.json"), plan.model_dump_json(by_alias=True, indent=1).encode())
    write_atomically(file, mine.encode())


def identity(plan: TrainingPlan) -> str:
    """SHA-256 over everything that the weights after a step depend on."""
    keep = {"method", plan.method.lower(), "model_uri", "model_commit", "adapter", "training", "deepspeed"}
    keep |= {"early_stopping", "evaluation", "nodes", "processes_per_node"}
    body = plan.model_dump(mode="json", include=keep)
    for name in ("datasets", "evaluation_datasets", "retention_datasets"):
        body[name] = [(d.name, d.split, d.digest, d.share) for d in getattr(plan, name)]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
