"""A batch on disk: generated rows, what filters removed, decisions. Files only grow, so that a killed Job can
continue."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from hone_api.base.meta import ApiModel
from hone_api.dataset.review import (
    CANDIDATES,
    DECISIONS,
    FILTERED,
    REQUEST,
    Candidate,
    Decision,
    Filtered,
    ReviewRequest,
)
from hone_api.dataset.synthesis import Synthesis
from hone_trainer.store.manifest import write_atomically

AnyModel = TypeVar("AnyModel", bound=ApiModel)


@dataclass
class GeneratedBatch:
    """The rows of one batch."""

    folder: Path
    candidates: list[Candidate] = field(default_factory=list)
    filtered: Counter[str] = field(default_factory=Counter)
    done: set[int] = field(default_factory=set)
    """Requests that have an answer."""

    @classmethod
    def open(cls, folder: Path, dataset: str, synthesis: Synthesis) -> GeneratedBatch:
        """The batch in a folder, created if absent; its request is always rewritten."""
        (folder / DECISIONS).mkdir(parents=True, exist_ok=True)
        request = ReviewRequest(dataset=dataset, synthesis=synthesis)
        write_atomically(folder / REQUEST, request.model_dump_json(by_alias=True, indent=1).encode())
        batch = cls(folder)
        for candidate in _read(folder / CANDIDATES, Candidate):
            batch.candidates.append(candidate)
            batch.done.add(candidate.index)
        for dropped in _read(folder / FILTERED, Filtered):
            batch.filtered[dropped.reason] += 1
            batch.done.add(dropped.index)
        return batch

    @property
    def generated(self) -> int:
        """Answers so far."""
        return len(self.done)

    def keep(self, candidate: Candidate) -> None:
        """Add a row that passed."""
        _append(self.folder / CANDIDATES, candidate)
        self.candidates.append(candidate)
        self.done.add(candidate.index)

    def drop(self, filtered: Filtered) -> None:
        """Add an answer that did not pass."""
        _append(self.folder / FILTERED, filtered)
        self.filtered[filtered.reason] += 1
        self.done.add(filtered.index)

    def decisions(self) -> list[Decision]:
        """All reviewers' decisions, each one's in the order in which they were taken."""
        files = sorted((self.folder / DECISIONS).glob("*.jsonl"))
        return [decision for file in files for decision in _read(file, Decision)]


def _append(file: Path, entry: ApiModel) -> None:
    """One more line, on disk when this returns."""
    with open(file, "ab+") as stream:
        if stream.tell() and _last_byte(stream.name) != b"\n":
            stream.write(b"\n")  # a process was killed in the middle of a line
        stream.write(entry.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _last_byte(file: str) -> bytes:
    with open(file, "rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1)


def _read(file: Path, kind: type[AnyModel]) -> Iterator[AnyModel]:
    """The entries of a file; a line that was not written to its end is none."""
    if not file.is_file():
        return
    with open(file, "rb") as lines:
        for line in lines:
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                if error.errors()[0]["type"] != "json_invalid":
                    raise
