"""Rows into the files of a Dataset: a file for each split, those that were refused, and those that were removed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

from hone_api.dataset.curation import CurationStep
from hone_trainer.datasets.engine.arrays import indices, numbers, of_numbers, of_texts, scalar
from hone_trainer.datasets.engine.relation import Relation, WantedRows
from hone_trainer.datasets.readers.rows import RawRow, RowError
from hone_trainer.store.contents import SPLITS
from hone_trainer.workers.parallel import Workers

REJECTED, REMOVED = "rejected.jsonl", "removed.jsonl"
_LITTLE_ROOM = 512 * 2**20
"""Bytes of a disk that other Datasets and runs may need meanwhile."""
_HASHED_BYTES = 4 * 2**20
_ROWS_NAMED = 10
_EXAMPLE_CHARACTERS = 600
_EXAMPLES = 3
"""Rows of a step that are kept for the report."""


def write_splits(rows: Relation, folder: Path, workers: Workers) -> dict[str, str]:
    """The rows of the table `divided` into a file for each split; order is that of the source.

    What they are written from goes where the disk has no room for both: it is read for the last time.

    Args:
        workers: they have `write_lines`.

    Returns:
        The SHA-256 of each file by its name.
    """
    unread = iter(rows.parts)
    part = next(unread, None)
    with ExitStack() as stack:
        files = _Files(folder, stack)
        wanted = rows.wanted("SELECT row, code, size FROM divided JOIN kept USING (row)")
        for task, _ in workers.map(write_lines, map(files.task, wanted)):
            files.see_written(task)
            while part is not None and part is not task.wanted.part and _has_little_room(folder):
                part.path.unlink(missing_ok=True)
                part = next(unread, None)
    return files.hashes()


def _has_little_room(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _LITTLE_ROOM


class _Place(NamedTuple):
    """Where some rows are in a file."""

    path: Path
    begin: int
    end: int


class _Task(NamedTuple):
    """Rows, and their places by the code of their split."""

    wanted: WantedRows
    places: dict[int, _Place]


class _Files:
    """The files of splits, by code: where the next rows go, and the hash of what is there."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._files: dict[int, IO[bytes]] = {}
        self._hashes: dict[int, Any] = {}
        self._ends: dict[int, int] = {}

    def task(self, wanted: WantedRows) -> _Task:
        """The rows with the places of their lines, after those of all rows before."""
        import numpy

        begins = self._ends.copy()
        for _, _, batch in wanted.groups:
            codes, sizes = (numbers(batch.column(name)) for name in ("code", "size"))
            for code in numpy.unique(codes).tolist():
                if code not in self._files:  # no buffer: what comes next in the file may not be written yet
                    file = open(self._path(code), "w+b", buffering=0)  # noqa: SIM115
                    self._files[code], self._hashes[code] = self._stack.enter_context(file), hashlib.sha256()
                self._ends[code] = self._ends.get(code, 0) + int((sizes[codes == code] + 1).sum())
        places = ((code, begins.get(code, 0), end) for code, end in self._ends.items())
        return _Task(wanted, {code: _Place(self._path(code), *at) for code, *at in places if at[0] < at[1]})

    def see_written(self, task: _Task) -> None:
        """Hash the lines; those of all rows before have been."""
        for code, place in task.places.items():
            file = self._files[code]
            while data := file.read(min(place.end - file.tell(), _HASHED_BYTES)):
                self._hashes[code].update(data)

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of each file by its name."""
        return {self._path(code).name: self._hashes[code].hexdigest() for code in sorted(self._hashes)}

    def _path(self, code: int) -> Path:
        return self._folder / f"{SPLITS[code - 1]}.jsonl"


def write_lines(task: _Task) -> None:
    """Lines into their places: what a worker does."""
    import numpy

    with ExitStack() as stack:
        files = {code: stack.enter_context(open(place.path, "r+b")) for code, place in task.places.items()}
        for code, file in files.items():
            file.seek(task.places[code].begin)
        for batch, lines in task.wanted.lines():
            codes = numbers(batch.column("code"))
            for code in numpy.unique(codes).tolist():
                files[code].write(_lines_of(lines.take(indices(numpy.flatnonzero(codes == code)))))
        for code, file in files.items():  # else lines of others are overwritten, or a gap is left
            if file.tell() != (end := task.places[code].end):
                raise RuntimeError(f"{task.places[code].path.name}: lines end at byte {file.tell()}, not at {end}")


def _lines_of(texts: Any) -> Any:
    """All texts of an Arrow array as a buffer, each with the end of a line."""
    import numpy
    import pyarrow
    from pyarrow import compute

    empty = of_texts([b""])  # after the last one
    ends = of_numbers(numpy.array([0, len(texts) + 1], dtype=numpy.int32))
    every = pyarrow.ListArray.from_arrays(ends, pyarrow.concat_arrays([texts, empty]))
    return compute.binary_join(every, scalar("\n", pyarrow.string()))[0].as_buffer()


def write_rejected(rows: Relation, path: Path, see: Callable[[RawRow, RowError], None]) -> None:
    """The refused rows, each also shown to a function."""
    with open(path, "w", encoding="utf-8") as file:
        if rows.rows == rows.valid:
            return
        query = "SELECT row, number, code, message, place, place_line, lines_before FROM checked WHERE code IS NOT NULL"
        for batch, values in rows.lines(query):
            for (row_number, own, code, words, where, at, before), value in zip(
                _rows_of(batch), values.to_pylist(), strict=True
            ):
                place, message = json.loads(where), json.loads(words)
                if at:
                    place = f"{place}:{at + before}"
                number = row_number if own is None else own
                row, error = RawRow(number, place, json.loads(value)), RowError(code, message)
                file.write(rejected_line(row, error))
                see(row, error)


def rejected_line(row: RawRow, error: RowError) -> str:
    """A refused row as a line of its file."""
    entry = {"row": row.number, "place": row.place, "code": error.code, "message": str(error), "value": row.value}
    return json.dumps(entry, default=str) + "\n"


class Ledger:
    """What became of rows in the curation, by step in the order of the steps."""

    def __init__(self, rows: Relation, names: Sequence[str]) -> None:
        self._rows = rows
        self.steps = [CurationStep(step=name) for name in names]
        self.examples: dict[str, list[dict[str, Any]]] = {}
        """The first rows that a step removed or changed, for the report; a changed one as it is kept."""

    def write(self, path: Path, workers: Workers) -> None:
        """Count, and write the removed rows, a JSON object a line in the order of the source, if there are any.

        Args:
            workers: they have `removed_lines`.
        """
        rows = self._rows
        rows.execute(
            """CREATE TABLE removed AS SELECT row, min(step) AS step, arg_min(reason, step) AS reason,
                arg_min(other_answer, step) AS other_answer FROM verdicts GROUP BY row"""
        )
        # A row that a step changed was left by the steps before.
        rows.execute(
            """CREATE VIEW changed AS SELECT changes.* FROM changes LEFT JOIN removed USING (row)
                WHERE removed.step IS NULL OR removed.step > changes.step"""
        )
        counts = "SELECT step, count(*), count(*) FILTER (other_answer) FROM removed GROUP BY step"
        for place, removed, others in rows.all(counts):
            self.steps[place].removed, self.steps[place].other_answers = removed, others
        for place, changed in rows.all("SELECT step, count(*) FROM changed GROUP BY step"):
            self.steps[place].changed = changed
        self._name()
        if any(step.removed for step in self.steps):
            names = [step.step for step in self.steps]
            removed = ((wanted, names) for wanted in rows.wanted("SELECT row, step, reason FROM removed"))
            with open(path, "wb") as file:
                file.writelines(lines for _, lines in workers.map(removed_lines, removed))

    def _name(self) -> None:
        """The first rows of each step."""
        query = f"""SELECT row, step, reason, nth FROM (
            SELECT *, row_number() OVER (PARTITION BY step ORDER BY row) AS nth FROM (
                SELECT row, step, reason FROM removed UNION ALL SELECT row, step, reason FROM changed)
        ) WHERE nth <= {_ROWS_NAMED}"""
        for batch, lines in self._rows.lines(query):
            for (number, place, reason, nth), line in zip(_rows_of(batch), lines.to_pylist(), strict=True):
                entry = self.steps[place]
                entry.rows.append(number)
                if nth == 1:
                    entry.example = f"row {number}: {reason}"[:_EXAMPLE_CHARACTERS]
                if nth <= _EXAMPLES:
                    cut = "…" if len(line) > _EXAMPLE_CHARACTERS else ""
                    shown = {"row": number, "reason": reason, "value": line[:_EXAMPLE_CHARACTERS] + cut}
                    self.examples.setdefault(entry.step, []).append(shown)
        self.examples = {step.step: self.examples[step.step] for step in self.steps if step.step in self.examples}


def removed_lines(task: tuple[WantedRows, Sequence[str]]) -> bytes:
    """Removed rows as lines of their file, by the names of all steps: what a worker does."""
    wanted, names = task
    written = []
    for batch, lines in wanted.lines():
        for (number, step, reason), line in zip(_rows_of(batch), lines.to_pylist(), strict=True):
            entry = {"row": number, "step": names[step], "reason": reason, "value": json.loads(line)}
            written.append(f"{json.dumps(entry, ensure_ascii=False)}\n")
    return "".join(written).encode()


def _rows_of(batch: Any) -> Any:
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)
