"""Balance: at most so many rows for each value of a column, chosen by the hash of seed and content.

So the choice depends on no other row, and appended rows of other values change nothing.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation import personal_data
from hone_trainer.datasets.curation.base import CuratedRow, Step
from hone_trainer.datasets.splits import hash_of
from hone_trainer.datasets.spool import Spool, ValidRow
from hone_trainer.workers.parallel import Workers


def step(plan: MaterializePlan) -> BalanceStep | None:
    """The step that curation.balance asks for."""
    settings = plan.curation.balance
    if settings is None:
        return None

    def shown(label: str) -> str:
        return json.dumps(personal_data.redacted(json.loads(label), plan), ensure_ascii=False)

    return BalanceStep(settings.max_rows, plan.curation.seed, shown)


class BalanceStep(Step):
    """12 bytes of memory a row, and the values."""

    def __init__(self, most: int, seed: int, shown: Callable[[str], str] = str) -> None:
        """shown: a value as people may see it."""
        self._most, self._seed, self._shown = most, seed, shown

    def run(self, rows: Iterator[ValidRow], room: Path, workers: Workers) -> Iterator[CuratedRow]:
        """As `Step.run`."""
        with Spool(room / "rows") as spool:
            values: dict[str, int] = {}
            labels, hashes = array("I"), array("Q")
            for row in rows:
                spool.append(row)
                labels.append(values.setdefault(row.label, len(values)))
                hashes.append(hash_of(row.line.encode(), self._seed))
            counts = numpy.bincount(numpy.frombuffer(labels, dtype=numpy.uint32), minlength=len(values))
            rank = _rank_in_group(labels, hashes)
            for index, row in enumerate(spool):
                over = rank[index] >= self._most
                count = int(counts[labels[index]])
                yield CuratedRow(row, removed=f"is one of {count} with {self._shown(row.label)[:80]}" if over else None)


def _rank_in_group(labels: array[int], hashes: array[int]) -> numpy.ndarray:
    """For each entry, how many of its label have a lower hash (an earlier one counts as lower)."""
    label = numpy.frombuffer(labels, dtype=numpy.uint32)
    order = numpy.lexsort((numpy.frombuffer(hashes, dtype=numpy.uint64), label))
    ordered = label[order]
    starts = numpy.searchsorted(ordered, ordered, side="left")
    rank = numpy.empty(len(order), dtype=numpy.int64)
    rank[order] = numpy.arange(len(order)) - starts
    return rank
