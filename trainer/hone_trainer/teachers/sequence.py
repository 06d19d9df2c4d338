"""Sequence-level distillation (Kim and Rush 2016, arXiv 1606.07947): before training, the teacher answers every prompt,
and the student is tuned on these answers instead of the rows' own.

The answers are greedy, the teacher's most likely ones. They are written in parts, so that a resumed run asks only for
the missing ones. The teacher has a process of its own, so its memory is free again when the student is loaded.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone_api.contract import encoding
from hone_api.plan import DatasetInput, TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.encoding import split_file
from hone_trainer.encoding.prompts import no_prompt
from hone_trainer.errors import DataError
from hone_trainer.store.manifest import write_atomically
from hone_trainer.teachers import from_endpoint, from_model, skipped
from hone_trainer.teachers.skipped import LeftOut, RefusedPrompts
from hone_trainer.teachers.teacher import Teacher, options_of

PART = 64
"""Rows in a part."""
SAID_EVERY = 15.0
"""Seconds between lines in the log while the teacher answers."""


def answers_file(plan: TrainingPlan, number: int) -> Path:
    """The file for the answers to the rows of a source, by its number among `encoding.splits`."""
    return Path(plan.work_path) / "teacher" / f"{number}.jsonl"


def load(plan: TrainingPlan) -> Teacher:
    """Load the plan's teacher.

    Raises:
        SourceError: from an endpoint or its key; see `from_endpoint.connect`.
    """
    if options_of(plan).teacher_endpoint:
        return from_endpoint.connect(plan)
    return from_model.load(plan)


@dataclass(frozen=True)
class _Split:
    """Rows to be answered, and the file for the answers."""

    name: str
    """For people."""
    target: Path
    records: list[dict[str, Any]]

    @classmethod
    def of(cls, source: DatasetInput, target: Path) -> _Split:
        """The split of a file.

        Raises:
            DataError: InvalidRow; DatasetFormatMismatch for a row without a question.
        """
        name, records = f"{source.name}/{source.split}", list[dict[str, Any]]()
        for number, record in split_file.records(Path(source.path)):
            if wrong := no_prompt(record):
                message = f"{name}, line {number}: {wrong}: distillation.level Sequence has nothing to answer"
                raise DataError(FailureCode.DATASET_FORMAT_MISMATCH, message)
            records.append(record)
        return cls(name, target, records)

    def part(self, start: int) -> Path:
        """The file of the entries that start at this record."""
        return self.target.with_name(f"{self.target.stem}-{start:08d}.part")


def write_answers(plan: TrainingPlan) -> None:
    """Write the teacher's answers to all splits of the plan.

    Raises:
        DataError: InvalidRow or DatasetFormatMismatch, before any prompt is sent; NoTrainableRows, if the teacher
            finished no
            answer of a split.
        SourceError: from an endpoint; also EndpointRefused if it refuses too many prompts.
    """
    splits = [_Split.of(source, answers_file(plan, number)) for number, source in enumerate(encoding.splits(plan))]
    teacher = load(plan)
    refusals = skipped.RefusedPrompts(sum(len(split.records) for split in splits))
    for split in splits:
        if split.target.is_file():
            refusals.add(split.name, len(split.records), skipped.read(split.target))
        else:
            _answer(teacher, split, refusals)


def _answer(teacher: Teacher, split: _Split, refusals: RefusedPrompts) -> None:
    """Write the answers to a split, and the reasons for rows without one."""
    split.target.parent.mkdir(parents=True, exist_ok=True)
    starts, count = range(0, len(split.records), PART), len(split.records)
    entries, logged_at = list[dict[str, Any]](), time.monotonic()
    for start in starts:
        entries += _part(teacher, split, start, refusals)
        if time.monotonic() >= logged_at + SAID_EVERY:
            logged_at = time.monotonic()
            _log(f"{split.name}: the teacher was asked {len(entries)} of {count} rows")
    answered, left = skipped.separate(entries)
    reasons = skipped.summary(left)
    if not answered:
        raise DataError(
            FailureCode.NO_TRAINABLE_ROWS, f"{split.name}: the teacher finished no answer to {count} rows{reasons}"
        )
    _log(f"{split.name}: the teacher answered {len(answered)} of {count} rows{reasons}")
    if left:
        _write(skipped.file_of(split.target), (skip.entry(row) for row, skip in left.items()))
    _write(split.target, answered)
    for start in starts:
        split.part(start).unlink()


def _part(teacher: Teacher, split: _Split, start: int, refusals: RefusedPrompts) -> list[dict[str, Any]]:
    """The entries of PART records, requested unless they are on disk. If too many are refused, they are not kept."""
    file, records = split.part(start), split.records[start : start + PART]
    if file.is_file():
        entries = [json.loads(line) for line in file.read_text().splitlines()]
    else:
        numbered = enumerate(teacher.rows(records), start + 1)
        entries = [row.entry(number) if isinstance(row, LeftOut) else row for number, row in numbered]
    refusals.add(split.name, len(records), skipped.separate(entries)[1])
    if not file.is_file():
        _write(file, entries)
    return entries


def _write(file: Path, entries: Iterable[dict[str, Any]]) -> None:
    write_atomically(file, "".join(json.dumps(entry) + "\n" for entry in entries).encode())


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
