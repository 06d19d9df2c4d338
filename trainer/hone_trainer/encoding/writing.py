"""A split's file to a folder of encoded rows, on all cores. The files are the same for any number of workers and pods:
the chunks are those of the file, and their results are written in its order. They are the same as well when an attempt
goes on from the chunks that an earlier one finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hone_api.plan import WorkerPods
from hone_api.words.failures import FailureCode
from hone_trainer.encoding import chunks, columns, mapped, rendering, reuse
from hone_trainer.encoding.chunks import Chunk
from hone_trainer.encoding.parts import Part, Parts
from hone_trainer.encoding.split_file import (
    Counts,
    Policy,
    RecordEncoder,
    encode_records,
    longest,
    problem,
    refuse_empty,
)
from hone_trainer.errors import DataError, TrainerError
from hone_trainer.store import folders, manifest
from hone_trainer.workers.parallel import Workers, cores

Noted = Callable[[int, int], None]
"""Called after each chunk with lines and tokens so far; may raise to give up."""


@dataclass(frozen=True)
class Task:
    """How the rows of one split are encoded."""

    path: Path
    encoder: RecordEncoder[Any]
    policy: Policy
    vocabulary: int
    """Token ids of the model; those of a row must be below it."""
    where: str
    """Name of the split, for messages."""
    day: date | None = None
    """What chat templates print as the date of today; None: what the clock says."""
    thinking: str = "Auto"
    """See `training.thinking`."""
    token_key: str | None = None
    """See `reuse`; None: the rows are reused only under their own name."""


def write(task: Task, target: Path, pieces: list[Chunk], noted: Noted, workers: int | None = None) -> None:
    """Encode the split into the folder `target`, which is complete or absent.

    Args:
        pieces: of the split's file.
        workers: processes; None: one for each core. A file of one chunk needs none.

    Raises:
        ConfigError, DataError: as `encode_split`, for the first line that is wrong.
        TrainerError: OutOfMemory, when a worker was killed. What was encoded before stays for the next call.
        StoreError: the folder cannot be written.
    """
    with Encoders([task], min(workers or cores(), len(pieces))) as encoders:
        encoders.write(task, target, pieces, noted)


class Encoders:
    """Workers that encode splits, one split after the other.

    Args:
        tasks: all splits that `write` may be called with.
        count: processes; with pods: in each of them.
        pods: the pods whose workers encode; None: this pod alone.
    """

    def __init__(self, tasks: Sequence[Task], count: int, pods: WorkerPods | None = None) -> None:
        self._tasks = list(tasks)
        self._encode = [partial(encode_chunk, task) for task in tasks]
        self._workers = Workers(self._encode, count, "encodes rows", pods)

    def __enter__(self) -> Encoders:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.__exit__()

    def write(self, task: Task, target: Path, pieces: Sequence[Chunk], noted: Noted, kept: Noted | None = None) -> None:
        """As the function `write`.

        Args:
            kept: called first, with the lines and tokens that an earlier attempt encoded, if it did.
        """
        with folders.resumed_folder(target) as work:
            parts = Parts(work, _identity(task, pieces))
            if parts.finished and kept:
                kept(parts.kept.counts.lines, parts.kept.counts.tokens)
            new = self._encoded(task, iter(pieces[parts.finished :]))
            _assemble(task, target, parts, new, noted)

    def _encoded(self, task: Task, pieces: Iterator[Chunk]) -> Iterator[Part]:
        if self._workers.are_elsewhere:
            pieces = (chunk.loaded(task.path) for chunk in pieces)
        return (part for _, part in self._workers.map(self._encode[self._tasks.index(task)], pieces))


def assemble(task: Task, target: Path, parts: Iterator[Part], noted: Noted) -> None:
    """Make the folder `target` of what the chunks of a split gave, in their order.

    Raises:
        DataError, StoreError: as `write`.
    """
    with folders.work_folder(target.parent) as work:
        _assemble(task, target, Parts(work), parts, noted)


def _identity(task: Task, pieces: Sequence[Chunk]) -> str:
    """Of the parts that these chunks give. The name of the folder stands for the rows and the encoder."""
    borders = [(chunk.start, chunk.end) for chunk in pieces]
    return hashlib.sha256(repr((task.policy, task.vocabulary, task.day, task.thinking, borders)).encode()).hexdigest()


def _assemble(task: Task, target: Path, parts: Parts, new: Iterator[Part], noted: Noted) -> None:
    total, bad, has_masks, numbers = Counts(), None, False, []
    for part in chain([parts.kept] if parts.finished else (), parts.added(new)):
        total.add(part.counts)
        bad, has_masks = bad or part.problem, has_masks or part.has_masks
        if len(part.lengths):
            numbers.append((part.lengths, part.tokens, part.trained))
        noted(total.lines, total.tokens)
    refuse_empty(total, task.path)
    if bad is not None:
        raise DataError(FailureCode.INVALID_ROW, f"{task.where}, {bad}")
    parts.close(total, has_masks, numbers)
    if task.token_key is not None:
        (parts.files / reuse.KEY).write_text(f"{task.token_key}\n")
    manifest.write(parts.files)
    folders.publish(parts.files, target)


def encode_chunk(task: Task, chunk: Chunk) -> Part:
    """The rows of a chunk."""
    with rendering.of_run(task.day, task.thinking):
        return _encode_chunk(task, chunk)


def _encode_chunk(task: Task, chunk: Chunk) -> Part:
    task.encoder.end_of_turn_ids.clear()  # it has what earlier chunks showed
    part = Part()
    rows: list[Any] = []
    tokens, trained = [0], [0]
    try:
        for row in encode_records(chunks.records(task.path, chunk), task.encoder, task.policy, task.path, part.counts):
            rows.append(row)
            tokens.append(part.counts.tokens)
            trained.append(part.counts.trained_tokens)
    except TrainerError as error:
        part.failure = (type(error), error.code, error.message)
        return part
    part.counts.end_of_turn_ids = set(task.encoder.end_of_turn_ids)
    part.lengths = np.fromiter(map(longest, rows), np.int32, len(rows))
    part.tokens, part.trained = (np.diff(sums).astype(np.int32) for sums in (tokens, trained))
    try:
        if rows:
            part.rows = stream(columns.batch(rows, task.vocabulary))
        is_good = bool(part.trained.all())
    except columns.OutsideVocabulary:
        is_good = False
    if not is_good:
        part.problem = next(bad for row in rows if (bad := problem(row, task.vocabulary)))
    part.has_masks = mapped.has_masks(rows)
    return part


def stream(batch: pa.RecordBatch) -> bytes:
    """The batch as `Part.rows` has it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content
