"""Rows that are like rows of other Datasets. Keys of a Dataset have no bands, which depend on what is called alike, and
would be ten times as large: so rows of the others are read and sketched here."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation import lsh
from hone_trainer.datasets.curation.near import NearStep, Texts, pairs_of, reason
from hone_trainer.datasets.engine.arrays import of_numbers
from hone_trainer.datasets.engine.parts import CheckedPart, PartWriter
from hone_trainer.datasets.engine.relation import Relation, parquet
from hone_trainer.datasets.readers.pieces import Piece, PieceRows, pieces
from hone_trainer.datasets.readers.read import DataFile
from hone_trainer.datasets.texts.texts import ValidRow
from hone_trainer.workers.parallel import Workers

_LINES = ".jsonl"
_Task = tuple[int, Piece, Path]


def step(plan: MaterializePlan) -> NearSharedRowsStep | None:
    """The step that curation.deduplicateAgainst asks for where curation.deduplicate is Near."""
    asked = plan.curation.deduplicate == "Near" and plan.curation.deduplicate_against
    return NearSharedRowsStep(plan) if asked else None


class NearSharedRowsStep(NearStep):
    """Of several rows of others that a row is like, the first one of the first Dataset is named."""

    _by_answer = True

    def __init__(self, plan: MaterializePlan) -> None:
        super().__init__(plan.curation.near_duplicates)
        self._others, self._similarity = plan.deduplicate_against, self._finder.least
        self._most = plan.limits.max_source_bytes

    @property
    def work(self) -> Sequence[Callable[..., Any]]:
        """As `Global.work`."""
        return (*super().work, self.sketch)

    def run(self, rows: Relation, room: Path, workers: Workers) -> None:
        """As `Global.run`."""
        room.mkdir(parents=True)
        parts = [part for _, part in workers.map(self.sketch, self._tasks(room))]
        if not parts:
            return
        # Their numbers go on after those of our rows.
        bases = [*accumulate((part.rows for part in parts[:-1]), initial=rows.rows)]
        rows.execute("CREATE TABLE their_bases (file UBIGINT, base BIGINT)")
        rows.insert("their_bases", {"file": [*range(len(parts))], "base": bases})
        rows.execute(
            f"""CREATE VIEW their_rows AS SELECT base + file_row_number + 1 AS row, r.* FROM
                {parquet([part.path for part in parts])} r JOIN their_bases b ON r.file_index = b.file"""
        )
        lsh.find_shared(rows, "their_rows", self._similarity)
        starts = [(base, part.file) for part, base in zip(parts, bases, strict=True) if part.is_first]
        found = dict[int, tuple[str, bool]]()
        with Texts(room) as texts:
            texts.add(rows.lines("SELECT DISTINCT low AS row FROM shared_pairs"))
            texts.add(rows.lines("SELECT DISTINCT high AS row FROM shared_pairs", parts, rows.rows))
            apart = (pair for pair in pairs_of(rows, "shared_pairs") if pair[0] not in found)
            for (row, other), likeness in self._finder.compare(texts, apart, workers):
                if likeness.is_alike and row not in found:
                    base, file = starts[bisect_left(starts, (other, "")) - 1]
                    found[row] = reason(f"row {other - base} of {file.removesuffix(_LINES)}", likeness)
        rows.remove_rows((row, *why) for row, why in found.items())

    def sketch(self, task: _Task) -> CheckedPart:
        """The part of a piece of another Dataset: what a worker does."""
        import pyarrow

        index, piece, folder = task
        sketches = [(f"sketch{at}", pyarrow.uint64()) for at in range(self._finder.columns)]
        schema, count = pyarrow.schema([("line", pyarrow.string()), *sketches]), 0
        with PartWriter(folder, index, "0" * 32, schema, is_kept=False) as writer:
            for block in PieceRows(piece, self._most).blocks():
                lines = [(row.line or b"").decode().rstrip("\n") for row in block]
                if lines:
                    hashes = self._finder.sketches([ValidRow(line, json.loads(line)) for line in lines])
                    writer.write([lines, *(of_numbers(numpy.ascontiguousarray(one)) for one in hashes)])
                    count += len(lines)
            about = {"file": piece.files[0].name, "is_first": piece.is_first, "rows": count, "valid": count}
            return writer.finish(about)

    def _tasks(self, folder: Path) -> Iterator[_Task]:
        files = [DataFile(Path(other.path), f"{other.name}/{other.split}{_LINES}") for other in self._others]
        every = (piece for file in files for piece in pieces([file], self._most))
        return ((index, piece, folder) for index, piece in enumerate(every))
