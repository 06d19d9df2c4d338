"""Exact duplicates: rows of one label, with texts that differ only in case, white space or Unicode form. The first
stays."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import batches
from hone_trainer.datasets.curation.base import CuratedRow, Step
from hone_trainer.datasets.curation.words import normalised
from hone_trainer.datasets.spool import Spool, ValidRow
from hone_trainer.datasets.texts import texts
from hone_trainer.workers.parallel import Workers


def step(plan: MaterializePlan) -> ExactDuplicatesStep | None:
    """The step for curation.deduplicate; removal of near duplicates also needs it."""
    return None if plan.curation.deduplicate == "None" else ExactDuplicatesStep()


class ExactDuplicatesStep(Step):
    """24 bytes of memory a row: rows are compared by 64 bits of a SHA-256, which differ in practice."""

    @property
    def work(self) -> Sequence[Callable[..., Any]]:
        """As `Step.work`."""
        return (_keys,)

    def run(self, rows: Iterator[ValidRow], room: Path, workers: Workers) -> Iterator[CuratedRow]:
        """As `Step.run`."""
        with Spool(room / "rows") as spool:
            numbers, keys = array("Q"), array("Q")
            for batch, keys_of_batch in workers.map(_keys, batches.of_rows(rows)):
                for row in batch:
                    spool.append(row)
                    numbers.append(row.number)
                keys.extend(keys_of_batch)
            first = _first_of_each(numpy.frombuffer(keys, dtype=numpy.uint64))
            for index, row in enumerate(spool):
                same = int(first[index])
                yield CuratedRow(row, removed=f"repeats row {numbers[same]}" if same != index else None)


def _keys(rows: Sequence[ValidRow]) -> array[int]:
    return array("Q", map(_key, rows))


def _key(row: ValidRow) -> int:
    digest = hashlib.sha256(str(row.record.get("label")).encode())
    for where, text in texts(row.record):
        digest.update(f"{where}\0{normalised(text)}\0".encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest()[:8], "big")


def _first_of_each(keys: numpy.ndarray) -> numpy.ndarray:
    """For each entry, the index of the first one that is equal."""
    _, first, group = numpy.unique(keys, return_index=True, return_inverse=True)
    return first[group]
