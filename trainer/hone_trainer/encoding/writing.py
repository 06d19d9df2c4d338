"""A split's file to a folder of encoded rows, on all cores. The files are the same for any number of workers: the
chunks are those of the file, and their results are written in its order.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hone_trainer.encoding import chunks, columns, mapped
from hone_trainer.encoding.chunks import Chunk
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
from hone_trainer.signals import die_with_parent
from hone_trainer.store import folders, manifest

AHEAD = 2
"""Chunks that are given to each worker before the result of its first one is written."""
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


@dataclass
class Part:
    """What a chunk gave. Arrays have a number for each row."""

    counts: Counts = field(default_factory=Counts)
    rows: bytes = b""
    """A stream of one Arrow batch; empty without a row."""
    lengths: Any = None
    tokens: Any = None
    trained: Any = None
    has_masks: bool = False
    problem: str | None = None
    """Why the first row that the model cannot learn from is such a row."""
    failure: tuple[type[TrainerError], str, str] | None = None
    """What ended the chunk: kind, code and message. An error of ours is not pickled."""


def cores() -> int:
    """Processors that this process may use: of its affinity, and of its container's quota."""
    mine = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(mine, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no cgroup v2, or no limit
        return mine


def write(task: Task, target: Path, pieces: list[Chunk], noted: Noted, workers: int | None = None) -> None:
    """Encode the split into the folder `target`, which is complete or absent.

    Args:
        pieces: of the split's file.
        workers: processes; None: one for each core. A file of one chunk needs none.

    Raises:
        ConfigError, DataError: as `encode_split`, for the first line that is wrong.
        TrainerError: OutOfMemory, when a worker was killed.
        StoreError: the folder cannot be written.
    """
    count = min(workers or cores(), len(pieces))
    with ExitStack() as stack:
        parts = stack.enter_context(_Pool(task, count)).parts(pieces) if count > 1 else _here(task, pieces)
        work = stack.enter_context(folders.work_folder(target.parent))
        _write(task, work, parts, noted)
        manifest.write(work)
        folders.publish(work, target)


def _write(task: Task, folder: Path, parts: Iterator[Part], noted: Noted) -> None:
    """The files, without their manifest."""
    total, bad, has_masks = Counts(), None, False
    numbers: dict[str, list[Any]] = {mapped.LENGTHS: [], mapped.TOKENS: [], mapped.TRAINED: []}
    with ExitStack() as stack:
        sink = stack.enter_context(pa.OSFile(str(folder / mapped.ROWS), "wb"))
        writer: Any = None
        for part in parts:
            if part.failure is not None:
                kind, code, message = part.failure
                raise DataError(code, message) if issubclass(kind, DataError) else TrainerError(code, message)
            total.add(part.counts)
            bad, has_masks = bad or part.problem, has_masks or part.has_masks
            if part.rows:
                batch = pa.ipc.open_stream(part.rows).read_next_batch()
                writer = writer or stack.enter_context(pa.ipc.new_stream(sink, batch.schema))
                writer.write_batch(batch)
                for name, found in zip(numbers, (part.lengths, part.tokens, part.trained), strict=True):
                    numbers[name].append(found)
            noted(total.lines, total.tokens)
    refuse_empty(total, task.path)
    if bad is not None:
        raise DataError("InvalidRow", f"{task.where}, {bad}")
    for name, arrays in numbers.items():
        np.save(folder / name, np.concatenate(arrays))
    body = {**mapped.counts_to(total), "hasMasks": has_masks}
    (folder / mapped.COUNTS).write_text(json.dumps(body) + "\n")


def encode_chunk(task: Task, chunk: Chunk) -> Part:
    """The rows of a chunk."""
    # A new set and dictionary: those of the encoder have what earlier chunks showed.
    task.encoder.end_marks.clear()
    task.encoder.prompt_options.clear()
    part = Part()
    try:
        found = chunks.records(task.path, chunk)
        rows = list(encode_records(found, task.encoder, task.policy, task.path, part.counts))
    except TrainerError as error:
        part.failure = (type(error), error.code, error.message)
        return part
    part.counts.end_marks = set(task.encoder.end_marks)
    part.counts.prompt_options = dict(task.encoder.prompt_options)
    part.problem = next((bad for row in rows if (bad := problem(row, task.vocabulary))), None)
    if rows and part.problem is None:
        part.rows = _stream(columns.batch(rows, task.vocabulary))
    part.lengths = np.array([longest(row) for row in rows], np.int32)
    part.tokens = np.array([sum(map(len, row.sequences)) for row in rows], np.int32)
    part.trained = np.array([row.trained for row in rows], np.int32)
    part.has_masks = mapped.has_masks(rows)
    return part


def _stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    made: bytes = sink.getvalue().to_pybytes()
    return made


def _here(task: Task, pieces: list[Chunk]) -> Iterator[Part]:
    return (encode_chunk(task, chunk) for chunk in pieces)


class _Pool:
    """Processes that encode chunks. They are forked at once, with the encoder as it is, before this process starts a
    thread of the pool."""

    def __init__(self, task: Task, workers: int) -> None:
        self._workers = workers
        context = multiprocessing.get_context("fork")
        self._pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(task, os.getpid()))

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def parts(self, pieces: list[Chunk]) -> Iterator[Part]:
        """The parts in the order of the chunks; few are in memory at once."""
        waiting: deque[Future[Part]] = deque()
        todo = iter(pieces)
        while True:
            while len(waiting) < AHEAD * self._workers and (chunk := next(todo, None)) is not None:
                waiting.append(self._pool.submit(_encode, chunk))
            if not waiting:
                return
            try:
                yield waiting.popleft().result()
            except BrokenProcessPool:
                message = "a process that encodes rows was killed (most often by the kernel, out of memory)"
                raise TrainerError("OutOfMemory", message) from None


_task: Task
"""Of a worker."""


def _begin(task: Task, parent: int) -> None:
    """In a worker: the signals of the parent are the parent's, and the worker ends with it."""
    global _task
    _task = task
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(parent)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _encode(chunk: Chunk) -> Part:
    return encode_chunk(_task, chunk)
