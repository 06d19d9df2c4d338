"""The rows of a run: encoded, checked, counted."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hone_api.dataset.dataset_status import DatasetUse
from hone_api.plan import DatasetInput, TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.datasets.splits import shares
from hone_trainer.encoding.mapped import Examples, Joined, Mapped, Picked, most
from hone_trainer.errors import TrainerError
from hone_trainer.models.base_model import Base
from hone_trainer.reporting.live import Reporters
from hone_trainer.run import encode, preflight
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.store.manifest import write_atomically
from hone_trainer.teachers import skipped


@dataclass(frozen=True)
class Data:
    """All examples of a run, read from the disk when they are asked for."""

    train: Examples
    held_out: list[HeldOut]
    end_of_turn_ids: frozenset[int]
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
        return most(self.train)


def load(plan: TrainingPlan, base: Base, reporters: Reporters | None = None) -> Data:
    """Every split of the plan, encoded: before, or now.

    Args:
        reporters: get how far the encoding is.

    Raises:
        TrainerError: InvalidRow, DatasetFormatMismatch, RowTooLong, NoTrainableRows; UnsupportedModel for an unusable
            tokenizer.
    """
    marks: set[int] = set()
    summaries: dict[str, str] = {}
    warnings: list[str] = []
    splits = encode.ready(plan, base, reporters)

    def encoded(source: DatasetInput) -> Mapped:
        name = f"{source.name}/{source.split}"
        split = splits[source.path]
        counts = split.counts
        unanswered = skipped.read(Path(source.path)) if plan.distillation else {}
        warnings.extend(skipped.warnings(name, counts.lines + len(unanswered), unanswered))
        warnings.extend(preflight.untrained_ends(counts, name))
        summaries[name] = counts.summary() + skipped.summary(unanswered)
        marks.update(counts.end_of_turn_ids)
        return split

    train, used = _mix(plan, [encoded(source) for source in plan.datasets])
    held_out = [
        HeldOut(f"{s.name}/{s.split}", encoded(s)[: plan.evaluation.max_rows], Path(s.path))
        for s in plan.evaluation_datasets
    ]
    for use in used:
        summaries[f"{use.name}/{use.split}"] += _summary(use) if len(used) > 1 else ""
        warnings += _worn(use)
    return Data(train, held_out, frozenset(marks), summaries, warnings, used)


def _mix(plan: TrainingPlan, encoded_splits: list[Mapped]) -> tuple[Examples, list[DatasetUse]]:
    """The examples of one epoch in the order of the Datasets, and what each gave. The sampler shuffles them by seed."""
    names = [f"{source.name}/{source.split}" for source in plan.datasets]
    parts = [
        shares.WeightedRows(name, [len(examples)], source.share)
        for name, source, examples in zip(names, plan.datasets, encoded_splits, strict=True)
    ]
    picked: list[Examples] = [
        examples
        if amount == len(examples)
        else Picked(examples, shares.pick_rows(name, len(examples), amount, plan.training.seed))
        for name, amount, examples in zip(names, shares.amounts(parts), encoded_splits, strict=True)
    ]
    tokens = [examples.total for examples in picked]
    rows = [len(examples) for examples in picked]
    used = [
        DatasetUse(
            name=source.name,
            split=source.split,
            rows=rows[i],
            tokens=tokens[i],
            row_share=shares.percent(rows[i], sum(rows)),
            token_share=shares.percent(tokens[i], sum(tokens)),
            passes=f"{rows[i] / len(encoded_splits[i]):.2f}",
        )
        for i, source in enumerate(plan.datasets)
    ]
    return picked[0] if len(picked) == 1 else Joined(picked), used


def _summary(use: DatasetUse) -> str:
    of_all = f"{use.row_share} of the rows and {use.token_share} of the tokens"
    return f"; of an epoch: {use.rows} rows, {use.tokens} tokens ({of_all}), {use.passes} passes"


def _worn(use: DatasetUse) -> list[str]:
    """What to report of rows that are repeated very often."""
    if float(use.passes) <= shares.MANY_PASSES:
        return []
    advice = "add rows, or lower the share"
    return [f"{use.name}/{use.split}: a row is used {use.passes} times an epoch to reach the share: {advice}"]


def claim(plan: TrainingPlan) -> None:
    """Mark the work folder as this run's, so that checkpoints are never resumed under another plan.

    The plan itself is kept there, too: with it a checkpoint can be exported later.

    Raises:
        TrainerError: InvalidConfiguration when the folder belongs to another plan.
    """
    file = Path(plan.work_path) / "plan.sha256"
    mine = identity(plan)
    if file.is_file():
        if file.read_text() != mine and _kept_identity(file.with_name("plan.json")) != mine:
            raise TrainerError(
                FailureCode.INVALID_CONFIGURATION,
                f"workPath {plan.work_path} holds the checkpoints of another plan: name another folder, or remove it",
            )
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file.with_name("plan.json"), plan.model_dump_json(by_alias=True, indent=1).encode())
    write_atomically(file, mine.encode())


def _kept_identity(file: Path) -> str | None:
    """Of the plan that began the run, as this release sees it: it may have fields that an earlier one did not."""
    with suppress(OSError, ValueError):
        return identity(TrainingPlan.model_validate_json(file.read_bytes()))
    return None


def identity(plan: TrainingPlan) -> str:
    """SHA-256 over everything that the weights after a step depend on."""
    keep = {"method", plan.method.lower(), "model_uri", "model_commit", "adapter", "training", "deepspeed"}
    keep |= {"early_stopping", "evaluation", "nodes", "processes_per_node"}
    body = plan.largest.model_dump(mode="json", include=keep)
    for name in ("datasets", "evaluation_datasets", "retention_datasets"):
        body[name] = [(d.name, d.split, d.digest, d.share) for d in getattr(plan, name)]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
