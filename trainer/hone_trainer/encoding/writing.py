"""A split's file to a folder of encoded rows, on all cores. The files are the same for any number of workers and pods:
the chunks are those of the file, each becomes a part by itself, and the parts are written in its order. They are the
same as well when an attempt goes on from the parts that an earlier one finished.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from hone_api.words.failures import FailureCode
from hone_trainer.encoding import chunks, columns, mapped, rendering, reuse
from hone_trainer.encoding import parts as part_files
from hone_trainer.encoding.chunks import Chunk
from hone_trainer.encoding.parts import Part, PartSize
from hone_trainer.encoding.split_file import (
    Policy,
    RecordEncoder,
    encode_records,
    longest,
    problem,
    refuse_empty,
)
from hone_trainer.errors import DataError
from hone_trainer.store import folders, manifest, part_folder
from hone_trainer.store.part_folder import PartFolder
from hone_trainer.workers.parallel import Workers, cores
from hone_trainer.workers.pods import ALONE, Pod

Noted = Callable[[int, int], None]
"""Called after each chunk with lines and tokens so far; may raise to give up."""
log = logging.getLogger("hone.trainer")


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
        count: processes.
        pod: which of those that share the work this is.
    """

    def __init__(self, tasks: Sequence[Task], count: int, pod: Pod = ALONE) -> None:
        self._tasks, self._pod = list(tasks), pod
        self._encode = [partial(_made, task) for task in tasks]
        self._workers = Workers(self._encode, count, "encodes rows")

    def __enter__(self) -> Encoders:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.__exit__()

    def write(self, task: Task, target: Path, pieces: Sequence[Chunk], noted: Noted, kept: Noted | None = None) -> None:
        """As the function `write`.

        Args:
            kept: called first, with the lines and tokens that are encoded already, if some are.
        """
        with folders.resumed_folder(target) as work:
            parts = _parts(work, task, pieces)
            done = _Done(parts, len(pieces))
            if done.lines and kept:
                kept(done.lines, done.tokens)
            self._encode_missing(task, pieces, done, noted)
            parts.look()
            _publish(task, target, work, (_part(task, parts, at, chunk) for at, chunk in enumerate(pieces)))

    def share(self, task: Task, target: Path, pieces: Sequence[Chunk]) -> None:
        """In a pod that does not lead: encode its share, for the first one to write."""
        with folders.joined_folder(target) as work:
            try:
                done = _Done(_parts(work, task, pieces), len(pieces))
                self._encode_missing(task, pieces, done, lambda lines, tokens: None)
            except FileNotFoundError:
                if work.exists():
                    raise
                log.info("%s: the first pod has ended", task.where)

    def _encode_missing(self, task: Task, pieces: Sequence[Chunk], done: _Done, noted: Noted) -> None:
        parts = done.parts

        def missing() -> Iterator[_Missing]:
            for at in self._pod.order(len(pieces)):
                if self._pod.count > 1 and parts.look_again():
                    done.look()
                if at < done.end and (key := parts.key(at)) in done.missing:
                    yield _Missing(parts.path, at, key, pieces[at])

        for item, size in self._workers.map(self._encode[self._tasks.index(task)], missing()):
            done.add(item.key, size)
            noted(done.lines, done.tokens)


class _Missing(NamedTuple):
    """A part that is to be made."""

    folder: Path
    at: int
    key: str
    chunk: Chunk


class _Done:
    """What is there of a split."""

    def __init__(self, parts: PartFolder, count: int) -> None:
        self.lines, self.tokens, self.end = 0, 0, sys.maxsize
        """end: parts from here on are not needed: a row before them ends the work."""
        self.missing = {parts.key(at): at for at in range(count)}
        self.parts = parts
        self.look()

    def add(self, key: str, size: PartSize) -> None:
        """Count a part, once."""
        if (index := self.missing.pop(key, None)) is not None:
            self.lines, self.tokens = self.lines + size.lines, self.tokens + size.tokens
            self.end = min(self.end, index) if size.is_bad else self.end

    def look(self) -> None:
        """Count what others have made, or an earlier attempt."""
        for key in self.missing.keys() & self.parts.files.keys():
            self.add(key, part_files.size_of(self.parts.files[key]))


def assemble(task: Task, target: Path, parts: Iterable[Part]) -> None:
    """Make the folder `target` of what the chunks of a split gave, in their order.

    Raises:
        DataError, StoreError: as `write`.
    """
    with folders.work_folder(target.parent) as work:
        _publish(task, target, work, parts)


def _parts(work: Path, task: Task, pieces: Sequence[Chunk]) -> PartFolder:
    """Of the chunks. The name of the work folder stands for the rows and the encoder."""
    borders = [(chunk.start, chunk.end) for chunk in pieces]
    facts = repr((task.policy, task.vocabulary, task.day, task.thinking, borders))
    return PartFolder(work / "parts", hashlib.sha256(facts.encode()).hexdigest())


def _publish(task: Task, target: Path, work: Path, parts: Iterable[Part]) -> None:
    files = work / "files"
    total, bad = part_files.write(files, parts)
    refuse_empty(total, task.path)
    if bad is not None:
        raise DataError(FailureCode.INVALID_ROW, f"{task.where}, {bad}")
    if task.token_key is not None:
        (files / reuse.KEY).write_text(f"{task.token_key}\n")
    manifest.write(files)
    folders.publish(files, target)


def _made(task: Task, missing: _Missing) -> PartSize:
    """In a worker: the part is in its folder."""
    part = encode_chunk(task, missing.chunk)
    part_folder.put(missing.folder, missing.at, missing.key, part_files.packed(part))
    return part.size


def _part(task: Task, parts: PartFolder, index: int, chunk: Chunk) -> Part:
    """The part as it was made; made again where the disk has lost it."""
    path = parts.intact_file(parts.key(index))
    return part_files.unpacked(path.read_bytes()) if path else encode_chunk(task, chunk)


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
    except DataError as error:
        part.failure = (error.code, error.message)
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
